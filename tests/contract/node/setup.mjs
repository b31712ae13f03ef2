// What every file here starts from: clients for the running gateway, and scripts for the scripted upstream.

import { randomUUID } from 'node:crypto';
import OpenAI from 'openai';

function variable(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests through pytest (tests/contract/test_sdk_node.py)`);
  return value;
}

export const baseURL = variable('CONTRACT_BASE_URL');
/** Of the gateway with a database. */
export const keepingURL = variable('CONTRACT_KEEPING_URL');
export const apiKey = variable('CONTRACT_API_KEY');
const scriptedOrigin = variable('CONTRACT_SCRIPTED_ORIGIN');

export const hello = [{ role: 'user', content: 'What are you?' }];

/** The official client as a user sets it up: another base URL, another key. */
export function client(options = {}) {
  return new OpenAI({ baseURL, apiKey, timeout: 20_000, ...options });
}

/** All items of a stream. */
export async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

export const textOf = (chunks) =>
  chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta.content ?? '')).join('');

/** What the scripted upstream shall answer, and what it was sent. See tests/contract/scripted.py. */
export function script(...steps) {
  const key = randomUUID();
  return {
    body: { x_script: { key, steps } },
    calls: async () => (await fetch(`${scriptedOrigin}/recorded/${key}`)).json(),
  };
}
