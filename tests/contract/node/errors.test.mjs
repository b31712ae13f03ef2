// Each failure becomes the exception that the official Node client has for it.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import OpenAI from 'openai';
import { client, hello, script } from './setup.mjs';

const openai = client();
const patient = client({ maxRetries: 0 });

/** Checks the class, the four keys, the request id, and what else is given. */
async function rejects(promise, kind, expected = {}) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    assert.deepEqual(Object.keys(error.error).sort(), ['code', 'message', 'param', 'type']);
    assert.match(error.requestID, /^req_/);
    for (const [name, value] of Object.entries(expected)) assert.equal(error[name], value, name);
    return true;
  });
}

test('a wrong key', async () => {
  const asked = client({ apiKey: 'sk-wrong' }).chat.completions.create({ model: 'demo-fast', messages: hello });
  await rejects(asked, OpenAI.AuthenticationError, { status: 401, code: 'invalid_api_key' });
});

for (const stream of [false, true]) {
  test(`an unknown model, stream ${stream}`, async () => {
    const asked = openai.chat.completions.create({ model: 'demo-fast-2', messages: hello, stream });
    await rejects(asked, OpenAI.NotFoundError, { code: 'model_not_found', param: 'model' });
  });

  test(`what the upstream refuses, stream ${stream}`, async () => {
    const parameters = { model: 'demo-fast', messages: hello, tool_choice: 'required', stream };
    await rejects(openai.chat.completions.create(parameters), OpenAI.BadRequestError, { param: 'tool_choice' });
  });

  test(`what the gateway refuses, stream ${stream}`, async () => {
    const steps = script({});
    const parameters = { model: 'scripted', messages: hello, temperature: 9, stream, ...steps.body };
    const expected = { code: 'invalid_value', param: 'temperature' };
    await rejects(openai.chat.completions.create(parameters), OpenAI.BadRequestError, expected);
    assert.deepEqual(await steps.calls(), []);
  });

  test(`an error before the first event keeps its status, stream ${stream}`, async () => {
    const steps = script({ status: 503 });
    const asked = patient.chat.completions.create({ model: 'scripted', messages: hello, stream, ...steps.body });
    await rejects(asked, OpenAI.InternalServerError, { status: 503 });
  });
}

test('a rate limit', async () => {
  const steps = script({ status: 429, headers: { 'retry-after-ms': '1500' } });
  const asked = patient.chat.completions.create({ model: 'node-limited-error', messages: hello, ...steps.body });
  await rejects(asked, OpenAI.RateLimitError, { status: 429 });
});

test('an upstream that refuses our key', async () => {
  const steps = script({ status: 401 });
  const asked = openai.chat.completions.create({ model: 'scripted', messages: hello, ...steps.body });
  await rejects(asked, OpenAI.InternalServerError, { status: 502, code: 'upstream_auth_error' });
  assert.equal((await steps.calls()).length, 1);
});

test('an upstream that is too slow', async () => {
  const steps = script({ delay: 3 });
  const asked = patient.chat.completions.create({ model: 'scripted-impatient', messages: hello, ...steps.body });
  await rejects(asked, OpenAI.InternalServerError, { status: 504, code: 'upstream_timeout' });
});

test('a client that is too slow times out itself', async () => {
  const hasty = client({ maxRetries: 0, timeout: 300 });
  const asked = hasty.chat.completions.create({ model: 'scripted', messages: hello, ...script({ delay: 3 }).body });
  await assert.rejects(asked, OpenAI.APIConnectionTimeoutError);
});

test('nobody there', async () => {
  const server = createServer();
  const port = await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
  await new Promise((resolve) => server.close(resolve));
  const lost = client({ baseURL: `http://127.0.0.1:${port}/v1`, maxRetries: 0 });
  await assert.rejects(lost.models.list(), OpenAI.APIConnectionError);
});

const chunk = (content) =>
  JSON.stringify({
    id: 'c',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'scripted',
    choices: [{ index: 0, delta: { content }, finish_reason: null }],
  });

const unfinished = {
  'without its end': [{ chunks: [chunk('one '), chunk('two')] }, /^upstream_(truncated|reset)$/, 'one two'],
  'cut off': [{ chunks: [chunk('one '), chunk('two')], cut: true }, /^upstream_(truncated|reset)$/, 'one two'],
  'with an error in it': [
    { chunks: [chunk('one '), '{"error":{"message":"the GPU fell off","type":"server_error","code":"xid_79"}}'] },
    /^xid_79$/,
    'one ',
  ],
};

for (const [name, [step, code, text]] of Object.entries(unfinished)) {
  test(`a stream ${name} is an error`, async () => {
    const parameters = { model: 'scripted', messages: hello, stream: true };
    let got = '';
    const read = async () => {
      const stream = await openai.chat.completions.create({ ...parameters, ...script(step).body });
      for await (const event of stream) got += event.choices[0].delta.content ?? '';
    };
    await assert.rejects(read(), (error) => {
      assert.ok(error instanceof OpenAI.APIError);
      assert.match(error.code, code);
      return true;
    });
    assert.equal(got, text);
  });
}
