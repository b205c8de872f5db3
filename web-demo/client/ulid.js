const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

let lastTime = 0;
/** @type {number[]} the 16 random characters of the last ULID, as digits of base 32 */
let lastDigits = [];

/**
 * A new ULID: 10 characters of time, 16 of randomness. Within one millisecond the random part counts up,
 * so the ids of one page sort in the order they were made.
 * @param {number} [now] milliseconds since 1970
 */
export function ulid(now = Date.now()) {
  if (now <= lastTime) {
    increment(lastDigits);
  } else {
    lastTime = now;
    lastDigits = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte & 31);
  }

  let time = "";
  for (let rest = lastTime, i = 0; i < 10; i++, rest = Math.floor(rest / 32)) {
    time = ALPHABET[rest % 32] + time;
  }
  return time + lastDigits.map((digit) => ALPHABET[digit]).join("");
}

/** The 16 bytes of a ULID, as they travel where every byte counts. @param {string} text */
export function ulidBytes(text) {
  let number = [...text].reduce((sum, character) => sum * 32n + BigInt(ALPHABET.indexOf(character)), 0n);
  const bytes = new Uint8Array(16);
  for (let index = 15; index >= 0; index--, number >>= 8n) bytes[index] = Number(number & 255n);
  return bytes;
}

/** The ULID of 16 bytes. @param {Uint8Array} bytes */
export function ulidText(bytes) {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let text = "";
  for (let index = 0; index < 26; index++, number >>= 5n) text = ALPHABET[Number(number & 31n)] + text;
  return text;
}

/** @param {number[]} digits */
function increment(digits) {
  for (let i = digits.length - 1; i >= 0; i--) {
    digits[i] = (digits[i] + 1) & 31;
    if (digits[i] !== 0) return;
  }
}
