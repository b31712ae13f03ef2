// Embeddings, completions and models with the official Node client.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { all, client } from './setup.mjs';

const openai = client();

test('embeddings as the client asks for them, and as numbers', async () => {
  const ask = { model: 'demo-embedding', input: 'one two three' };
  const packed = await openai.embeddings.create(ask);
  const plain = await openai.embeddings.create({ ...ask, encoding_format: 'float' });
  assert.equal(packed.data[0].embedding.length, plain.data[0].embedding.length);
  packed.data[0].embedding.forEach((value, at) => assert.ok(Math.abs(value - plain.data[0].embedding[at]) < 1e-6));
  assert.equal(packed.usage.prompt_tokens, 3);
});

test('embeddings of a list keep its order', async () => {
  const input = Array.from({ length: 20 }, (_, number) => `text number ${number}`);
  const many = await openai.embeddings.create({ model: 'demo-embedding', input, dimensions: 64 });
  assert.deepEqual(many.data.map((item) => item.index), input.map((_, number) => number));
  const alone = await openai.embeddings.create({ model: 'demo-embedding', input: input[7], dimensions: 64 });
  assert.deepEqual(alone.data[0].embedding, many.data[7].embedding);
});

test('completions plain and streamed', async () => {
  const ask = { model: 'demo-fast', prompt: 'Once upon a time' };
  const plain = await openai.completions.create(ask);
  const chunks = await all(await openai.completions.create({ ...ask, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), plain.choices[0].text);
  assert.ok(!chunks.some((chunk) => 'usage' in chunk));
  const parameters = { ...ask, stream: true, stream_options: { include_usage: true } };
  const counted = await all(await openai.completions.create(parameters));
  assert.ok(counted.at(-1).usage.completion_tokens > 0);
});

test('models are listed', async () => {
  const models = await all(openai.models.list());
  const names = models.map((model) => model.id);
  for (const name of ['demo', 'demo-fast', 'demo-embedding', 'scripted', 'example/scripted-large']) {
    assert.ok(names.includes(name), name);
  }
  assert.equal(new Set(names).size, names.length);
  assert.ok(models.every((model) => model.object === 'model' && model.created > 0 && model.owned_by));
});

test('one model can be asked for, also with a slash in its name', async () => {
  for (const name of ['demo-fast', 'example/scripted-large']) {
    assert.equal((await openai.models.retrieve(name)).id, name);
  }
  await assert.rejects(openai.models.retrieve('no/such/model'), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    return true;
  });
});
