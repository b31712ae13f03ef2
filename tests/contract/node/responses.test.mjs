// The Node client's Responses API over an upstream that only chats, and what a gateway with a database keeps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { all, apiKey, client, keepingURL, script } from './setup.mjs';

const keeper = new OpenAI({ baseURL: keepingURL, apiKey, timeout: 20_000 });
const weather = {
  type: 'function',
  name: 'weather',
  description: 'The weather of a city.',
  strict: true,
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
};

test('a plain response', async () => {
  const response = await client().responses.create({ model: 'demo-fast', input: 'What are you?' });
  assert.equal(response.status, 'completed');
  assert.match(response.output_text, /Sluicegate/);
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
});

test('the stream helper takes every event', async () => {
  const stream = client().responses.stream({ model: 'demo-thinking-fast', input: 'What are you?' });
  const kinds = [];
  let text = '';
  stream.on('event', (event) => kinds.push(event.type));
  stream.on('response.output_text.delta', (event) => (text += event.delta));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, text);
  assert.equal(kinds[0], 'response.created');
  assert.equal(kinds.at(-1), 'response.completed');
  assert.deepEqual(final.output.map((item) => item.type), ['reasoning', 'message']);
});

test('a tool goes round', async () => {
  const input = [{ role: 'user', content: 'Call weather for Oslo' }];
  const stream = client().responses.stream({ model: 'demo-fast', input, tools: [weather] });
  const final = await stream.finalResponse();
  const [call] = final.output;
  assert.deepEqual(JSON.parse(call.arguments), { city: 'Oslo' });
  const output = { type: 'function_call_output', call_id: call.call_id, output: 'rain' };
  const answer = await client().responses.create({
    model: 'demo-fast',
    input: [...input, ...final.output.map(({ parsed_arguments, ...item }) => item), output],
    tools: [weather],
  });
  assert.match(answer.output_text, /rain/);
});

test('a chain of five turns, each right after the answer before', async () => {
  let previous;
  for (let turn = 0; turn < 5; turn += 1) {
    const scripted = script({});
    const response = await keeper.responses.create({
      model: 'scripted',
      input: `turn ${turn}`,
      previous_response_id: previous,
      ...scripted.body,
    });
    const [call] = await scripted.calls();
    const said = JSON.parse(call.body).messages.filter((message) => message.role === 'user');
    assert.deepEqual(said.map((message) => message.content), [...Array(turn + 1).keys()].map((n) => `turn ${n}`));
    previous = response.id;
  }
});

test('a conversation and its items', async () => {
  const conversation = await keeper.conversations.create({ metadata: { topic: 'x' } });
  await keeper.responses.create({ model: 'demo-fast', input: 'Hi', conversation: conversation.id });
  const items = await all(keeper.conversations.items.list(conversation.id, { order: 'asc' }));
  assert.deepEqual(items.map((item) => item.role), ['user', 'assistant']);
  await keeper.conversations.delete(conversation.id);
  await assert.rejects(keeper.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});

test('a response is retrieved, listed and deleted', async () => {
  const made = await keeper.responses.create({ model: 'demo-fast', input: 'Hi' });
  assert.equal((await keeper.responses.retrieve(made.id)).output_text, made.output_text);
  assert.equal((await all(keeper.responses.inputItems.list(made.id))).length, 1);
  await keeper.responses.delete(made.id);
  await assert.rejects(keeper.responses.retrieve(made.id), OpenAI.NotFoundError);
});

test('a stored chat', async () => {
  const messages = [{ role: 'user', content: 'Hi' }];
  const made = await keeper.chat.completions.create({ model: 'demo-fast', messages, store: true });
  assert.equal((await keeper.chat.completions.retrieve(made.id)).id, made.id);
  assert.equal((await all(keeper.chat.completions.messages.list(made.id))).length, 1);
  await keeper.chat.completions.delete(made.id);
});

test('a stream that breaks off is a failed response', async () => {
  const chunk = JSON.stringify({ id: 'c', choices: [{ index: 0, delta: { content: 'Half' } }] });
  const scripted = script({ chunks: [chunk], cut: true });
  const stream = await client().responses.create({ model: 'scripted', input: 'x', stream: true, ...scripted.body });
  const events = await all(stream);
  assert.equal(events.at(-1).type, 'response.failed');
  assert.ok(events.every((event) => event.type !== 'response.completed'));
});

test('without a database, state is refused by its field', async () => {
  await assert.rejects(
    client().responses.create({ model: 'demo-fast', input: 'x', store: true }),
    (error) => error.status === 400 && error.param === 'store' && error.code === 'storage_not_configured',
  );
});
