// What the official Node client does by itself after an error: how often it asks again, and how long it waits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { client, hello, script } from './setup.mjs';

const openai = client();
const ask = (steps, extra = {}, use = openai) =>
  use.chat.completions.create({ model: 'scripted', messages: hello, ...extra, ...steps.body });

test('a rate limit is waited for', async () => {
  const steps = script({ status: 429, headers: { 'retry-after-ms': '700' } }, {});
  const started = performance.now();
  const answer = await ask(steps, { model: 'node-limited-ms' });
  assert.equal(answer.choices[0].message.content, 'scripted');
  assert.ok(performance.now() - started >= 690);
  assert.equal((await steps.calls()).length, 2);
});

test('a quota is not waited for', async () => {
  const error = { message: 'no money', type: 'insufficient_quota', param: null, code: 'insufficient_quota' };
  const steps = script({ status: 429, body: JSON.stringify({ error }) });
  await assert.rejects(ask(steps, { model: 'node-limited-quota' }), OpenAI.RateLimitError);
  assert.equal((await steps.calls()).length, 1);
});

for (const stream of [false, true]) {
  test(`a server error is asked again, stream ${stream}`, async () => {
    const steps = script({ status: 500 });
    await assert.rejects(ask(steps, { stream }, client({ maxRetries: 1 })), OpenAI.InternalServerError);
    assert.equal((await steps.calls()).length, 2);
  });
}

test('a server error that passes is not seen', async () => {
  const steps = script({ status: 502 }, { status: 503 }, {});
  assert.equal((await ask(steps)).choices[0].message.content, 'scripted');
  assert.equal((await steps.calls()).length, 3);
});

test('x-should-retry: false is obeyed', async () => {
  const steps = script({ status: 500, headers: { 'x-should-retry': 'false' } });
  await assert.rejects(ask(steps), OpenAI.InternalServerError);
  assert.equal((await steps.calls()).length, 1);
});

for (const status of [400, 404, 413, 422]) {
  test(`a refusal with ${status} is not asked again`, async () => {
    const steps = script({ status });
    await assert.rejects(ask(steps), (error) => error.status === status);
    assert.equal((await steps.calls()).length, 1);
  });
}
