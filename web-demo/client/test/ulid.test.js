import assert from "node:assert/strict";
import { test } from "node:test";

import { ulid, ulidBytes, ulidText } from "../ulid.js";

test("an id has 26 characters of Crockford's base 32", () => {
  assert.match(ulid(), /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
});

test("the first ten characters tell the time", () => {
  assert.equal(ulid(2 ** 48 - 1 - 1).slice(0, 10), "7ZZZZZZZZY");
});

test("ids sort in the order they were made, within a millisecond and when the clock steps back", () => {
  const times = [0, 0, 0, 1, 1, 0, -5, 2].map((step) => 2 ** 48 - 1 + step - 2);
  const ids = times.map((time) => ulid(time));
  assert.deepEqual([...ids].sort(), ids);
  assert.equal(new Set(ids).size, ids.length);
});

test("an id is 16 bytes and comes back from them", () => {
  assert.deepEqual([...ulidBytes("00000000000000000000000010")], [...Array(15).fill(0), 32]);
  assert.deepEqual([...ulidBytes("7ZZZZZZZZZZZZZZZZZZZZZZZZZ")], Array(16).fill(255));
  for (const id of [ulid(), "01JD0123456789ABCDEFGHJKMN", "00000000000000000000000000"]) assert.equal(ulidText(ulidBytes(id)), id);
});
