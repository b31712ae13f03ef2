// Tools and structured output with the official Node client; arguments survive byte for byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { all, client, script } from './setup.mjs';

const openai = client();

const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather in a city.',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, days: { type: 'integer' } },
      required: ['city', 'days'],
      additionalProperties: false,
    },
  },
};

// What a parser would change: white space, key order, number forms, escapes, a doubled key, broken JSON at the end.
const exact =
  '{ "b":1.0e+5,\t"a" : "\\u00fc\\/\\ud83d\\ude00 ü😀", "n":"{\\"x\\": 01}", "b":-0, "big":12345678901234567890, ';

test('a tool round trip', async () => {
  const messages = [{ role: 'user', content: 'Use get_weather for Lisbon please' }];
  const called = await openai.chat.completions.create({ model: 'demo-fast', messages, tools: [weather] });
  assert.equal(called.choices[0].finish_reason, 'tool_calls');
  const message = called.choices[0].message;
  const [call] = message.tool_calls;
  assert.equal(call.function.name, 'get_weather');
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ['city', 'days']);

  messages.push(message, { role: 'tool', tool_call_id: call.id, content: 'sunny, 31 degrees' });
  const answer = await openai.chat.completions.create({ model: 'demo-fast', messages, tools: [weather] });
  assert.match(answer.choices[0].message.content, /sunny, 31 degrees/);
});

test('the tool runner of the client comes to an end', async () => {
  let asked = 0;
  const run = (input) => {
    asked += 1;
    assert.deepEqual(Object.keys(input).sort(), ['city', 'days']);
    return 'sunny, 31 degrees';
  };
  const tool = { type: 'function', function: { ...weather.function, parse: JSON.parse, function: run } };
  const messages = [{ role: 'user', content: 'Use get_weather for Lisbon please' }];
  for (const stream of [false, true]) {
    const runner = openai.chat.completions.runTools({ model: 'demo-fast', messages, tools: [tool], stream });
    assert.match(await runner.finalContent(), /sunny, 31 degrees/);
  }
  assert.equal(asked, 2);
});

test('arguments of a plain call survive exactly', async () => {
  const call = { id: 'call_1', type: 'function', function: { name: 'exact', arguments: exact } };
  const message = { role: 'assistant', content: null, tool_calls: [call] };
  const body = { id: 'c', object: 'chat.completion', created: 1, model: 'scripted' };
  const steps = script({
    body: JSON.stringify({ ...body, choices: [{ index: 0, message, finish_reason: 'tool_calls' }] }),
  });
  const messages = [{ role: 'user', content: 'x' }];
  const answer = await openai.chat.completions.create({ model: 'scripted', messages, ...steps.body });
  assert.deepEqual(answer.choices[0].message.tool_calls, [call]);
});

for (const size of [1, 2, 7, 1000]) {
  test(`arguments of a streamed call survive exactly, ${size} characters at a time`, async () => {
    const base = { id: 'c', object: 'chat.completion.chunk', created: 1, model: 'scripted' };
    const chunk = (delta, finish = null) =>
      JSON.stringify({ ...base, choices: [{ index: 0, delta, finish_reason: finish }] });
    const head = { index: 0, id: 'call_1', type: 'function', function: { name: 'exact', arguments: '' } };
    const characters = Array.from(exact);
    const parts = [];
    for (let at = 0; at < characters.length; at += size) parts.push(characters.slice(at, at + size).join(''));
    const chunks = [
      chunk({ role: 'assistant', tool_calls: [head] }),
      ...parts.map((part) => chunk({ tool_calls: [{ index: 0, function: { arguments: part } }] })),
      chunk({}, 'tool_calls'),
      '[DONE]',
    ];
    const parameters = { model: 'scripted', messages: [{ role: 'user', content: 'x' }], stream: true };
    const got = await all(await openai.chat.completions.create({ ...parameters, ...script({ chunks }).body }));
    const calls = got.flatMap((item) => item.choices[0].delta.tool_calls ?? []);
    assert.equal(calls.map((call) => call.function.arguments).join(''), exact);
    assert.equal(calls.length, 1 + parts.length);
  });
}

test('structured output is parsed', async () => {
  const Journey = z.object({ title: z.string(), cities: z.array(z.object({ name: z.string(), nights: z.int() })) });
  const parameters = {
    model: 'demo-fast',
    messages: [{ role: 'user', content: 'Plan a journey.' }],
    response_format: zodResponseFormat(Journey, 'journey'),
  };
  const plain = await openai.chat.completions.parse(parameters);
  assert.ok(plain.choices[0].message.parsed.cities.length > 0);
  const streamed = await openai.chat.completions.stream(parameters).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, plain.choices[0].message.parsed);
});
