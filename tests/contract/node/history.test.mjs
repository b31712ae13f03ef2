// Assistants with chat history, with the official Node client: five turns in each way to name a conversation.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { all, client, keepingURL, script, textOf } from './setup.mjs';

const model = 'remembers';
const answer = (text) => ({
  body: JSON.stringify({
    id: 'x',
    object: 'chat.completion',
    created: 1,
    model: 'scripted',
    choices: [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }],
  }),
});
const chunk = (content, finish_reason = null) =>
  JSON.stringify({
    id: 'x',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'scripted',
    choices: [{ index: 0, delta: { content }, finish_reason }],
  });
const streamed = (text) => ({ chunks: [chunk(text), chunk('', 'stop'), '[DONE]'] });
const said = async (key) =>
  JSON.parse((await key.calls())[0].body)
    .messages.filter((message) => message.role !== 'system')
    .map((message) => message.content);

const forms = {
  header: (id) => [{}, { headers: { 'X-Conversation-Id': id } }],
  metadata: (id) => [{ metadata: { conversation_id: id } }],
  model: (id) => [{ model: `${model}@${id}` }],
  user: (id) => [{ user: id }],
  'safety identifier': (id) => [{ safety_identifier: id }],
};

for (const stream of [false, true]) {
  for (const [form, options] of Object.entries(forms)) {
    test(`five turns by ${form}, ${stream ? 'streamed' : 'plain'}`, async () => {
      const [fields, request] = options(randomUUID());
      const before = [];
      for (let turn = 0; turn < 5; turn += 1) {
        const openai = client({ baseURL: keepingURL });
        const text = `answer ${turn}`;
        const steps = script(stream ? streamed(text) : answer(text));
        const messages = [{ role: 'user', content: `turn ${turn}` }];
        const body = { model, messages, stream, ...fields, ...steps.body };
        const { data, response } = await openai.chat.completions.create(body, request).withResponse();
        const content = stream ? textOf(await all(data)) : data.choices[0].message.content;
        assert.equal(content, text);
        assert.equal(response.headers.get('x-history'), `injected=${2 * turn} trimmed=0 branch=main`);
        assert.deepEqual(await said(steps), [...before, `turn ${turn}`]);
        before.push(`turn ${turn}`, text);
      }
    });
  }
}
