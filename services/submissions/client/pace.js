// How long to wait before the next attempt, and how much to send at once.

/** The first wait, and the longest one, in milliseconds. */
const FIRST = 1000;
const LONGEST = 5 * 60 * 1000;

/**
 * The wait after so many attempts in a row without progress: twice as long each time, and anywhere in it, so
 * that thousands of tablets that lost the same connection don't come back at once.
 */
export function backOff(attempts, random = Math.random) {
  const most = Math.min(LONGEST, FIRST * 2 ** Math.min(Math.max(attempts - 1, 0), 20));
  return most / 2 + (random() * most) / 2;
}

const KIB = 1024;
const SMALLEST = 64 * KIB;
const LARGEST = 8 * KIB * KIB;
/** What a chunk shall take, in milliseconds. */
const BRISK = 1000;
const SLOW = 4000;

/** The size of the next chunk: grows while chunks go through quickly, shrinks when one is cut or slow. */
export class Pace {
  constructor(size = 512 * KIB) {
    this.size = size;
  }

  went(milliseconds) {
    if (milliseconds < BRISK) this.#to(this.size * 2);
    if (milliseconds > SLOW) this.#to(this.size / 2);
  }

  broke() {
    this.#to(this.size / 2);
  }

  #to(size) {
    this.size = Math.min(Math.max(size, SMALLEST), LARGEST);
  }
}
