import assert from "node:assert/strict";
import { test } from "node:test";

import { words } from "../words.js";

test("there are 2048 words, each once, in order", () => {
  assert.equal(words.length, 2048);
  assert.equal(new Set(words).size, 2048);
  assert.deepEqual([...words].sort(), words);
});

test("words are short and plain", () => {
  assert.deepEqual(
    words.filter((word) => !/^[a-z]{3,8}$/.test(word)),
    [],
  );
});

test("no two words differ by one letter only", () => {
  const seen = new Map();
  for (const word of words) {
    for (let i = 0; i < word.length; i++) {
      // Replaced letters meet in the first pattern, a missing letter meets the whole of the shorter word.
      for (const pattern of [`${word.slice(0, i)}?${word.slice(i + 1)}`, word.slice(0, i) + word.slice(i + 1)]) {
        const other = seen.get(pattern) ?? (words.includes(pattern) ? pattern : undefined);
        const isClose = other !== undefined && other !== word && (pattern.includes("?") || pattern === other);
        assert.ok(!isClose, `${word} and ${other}`);
        seen.set(pattern, word);
      }
    }
  }
});
