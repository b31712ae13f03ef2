// Chat with the official Node client: plain, streamed, with and without usage.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { all, apiKey, baseURL, client, hello, textOf } from './setup.mjs';

const openai = client();
const ask = { model: 'demo-fast', messages: hello };

test('a plain answer is a whole chat completion', async () => {
  const answer = await openai.chat.completions.create(ask);
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.model, 'demo-fast');
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.match(answer.choices[0].message.content, /What are you\?/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test('a streamed answer says the same as a plain one', async () => {
  const plain = await openai.chat.completions.create(ask);
  const chunks = await all(await openai.chat.completions.create({ ...ask, stream: true }));
  assert.equal(textOf(chunks), plain.choices[0].message.content);
  assert.ok(chunks.length > 10);
  assert.equal(new Set(chunks.map((chunk) => `${chunk.id} ${chunk.created} ${chunk.model}`)).size, 1);
  const reasons = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason)).filter(Boolean);
  assert.deepEqual(reasons, ['stop']);
});

for (const options of [undefined, { include_usage: false }]) {
  test(`usage stays hidden with stream_options ${JSON.stringify(options)}`, async () => {
    const parameters = { ...ask, stream: true, ...(options && { stream_options: options }) };
    const chunks = await all(await openai.chat.completions.create(parameters));
    assert.ok(chunks.every((chunk) => chunk.choices.length > 0));
    assert.ok(!chunks.some((chunk) => 'usage' in chunk));
  });
}

test('usage that was asked for comes last and once', async () => {
  const parameters = { ...ask, stream: true, stream_options: { include_usage: true } };
  const chunks = await all(await openai.chat.completions.create(parameters));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, last.usage.prompt_tokens + last.usage.completion_tokens);
  assert.ok(chunks.length > 10);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
});

test('the stream helper builds the final answer', async () => {
  const stream = openai.chat.completions.stream(ask);
  let deltas = '';
  stream.on('content', (delta) => (deltas += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, deltas);
});

test('a reader that leaves early may ask again', async () => {
  const stream = await openai.chat.completions.create({ ...ask, model: 'demo-slow', stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.choices[0].finish_reason, null);
    break;
  }
  const again = await openai.chat.completions.create(ask);
  assert.equal(again.choices[0].finish_reason, 'stop');
});

test('an aborted request ends the stream', async () => {
  const stream = await openai.chat.completions.create({ ...ask, model: 'demo-slow', stream: true });
  let seen = 0;
  for await (const _ of stream) {
    seen += 1;
    if (seen === 2) stream.controller.abort();
  }
  assert.ok(seen >= 2 && seen < 6);
});

test('thinking passes through', async () => {
  const parameters = { model: 'demo-thinking-fast', messages: hello };
  const plain = await openai.chat.completions.create(parameters);
  const chunks = await all(await openai.chat.completions.create({ ...parameters, stream: true }));
  const streamed = chunks.map((chunk) => chunk.choices[0].delta.reasoning_content ?? '').join('');
  assert.match(streamed, /no model/);
  assert.equal(streamed, plain.choices[0].message.reasoning_content);
});

test('each answer names its request', async () => {
  const first = await openai.chat.completions.create(ask).withResponse();
  const second = await openai.chat.completions.create({ ...ask, stream: true }).withResponse();
  assert.match(first.request_id, /^req_/);
  assert.equal(first.data._request_id, first.response.headers.get('x-request-id'));
  assert.match(second.request_id, /^req_/);
  assert.notEqual(first.request_id, second.request_id);
  await all(second.data);
});

test('a stream ends with one [DONE] on the wire', async () => {
  const answer = await fetch(`${baseURL}/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ ...ask, stream: true }),
  });
  const text = await answer.text();
  assert.equal(text.split('[DONE]').length, 2);
  assert.ok(text.endsWith('data: [DONE]\n\n'));
});

test('many streams at once do not mix', async () => {
  const answers = await Promise.all(
    Array.from({ length: 40 }, async (_, number) => {
      const messages = [{ role: 'user', content: `number-${number}-end` }];
      return textOf(await all(await openai.chat.completions.create({ model: 'demo-fast', messages, stream: true })));
    }),
  );
  answers.forEach((answer, number) => assert.deepEqual(answer.match(/number-\d+-end/g), [`number-${number}-end`]));
});
