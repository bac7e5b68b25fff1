// Answers of the Learn screen, computed in the page, in the words and numbers of clearhead/view/answers.py.

import { answerWith, Refused } from './ask.js';
import { consequenceOf } from './consequences.js';
import { headVectors, learnedHeads } from './learned.js';
import { projectedToPlane } from './plane.js';
import { costsFor, quizOn } from './quiz.js';
import { embedded } from './vectors.js';

const LONGEST_SENTENCE = 2000; // characters
const MOST_WORDS_SHOWN = 12;

const LEARN_ANSWERS = {
  sentence: async ({ text }) => {
    const { tokens, x, notes } = await embedded(checkedSentence(text)),
      all = x.slice(0, MOST_WORDS_SHOWN),
      shown = tokens.slice(0, MOST_WORDS_SHOWN);
    return { text, tokens: shown, all, ...projectedToPlane(all), left: tokens.length - all.length, notes };
  },
  learned: ({ text }) => learnedHeads(checkedSentence(text)),
  head: ({ text, head }) => headVectors(checkedSentence(text), head),
  consequence: ({ problem, formula }) => consequenceOf(problem, formula),
  questions: ({ problem }) => ({ questions: quizOn(problem) }),
  costs: ({ dim }) => costsFor(Number(dim)),
};

answerWith(async (what, about, signal) => {
  await new Promise((turn) => setTimeout(turn)); // so that what is known is drawn first
  signal?.throwIfAborted();
  return LEARN_ANSWERS[what](about);
});

/** The sentence, or Refused for a long one. */
function checkedSentence(text) {
  const count = [...text].length;
  if (count > LONGEST_SENTENCE)
    throw new Refused(`The sentence has ${count} characters: give at most ${LONGEST_SENTENCE}.`);
  return text;
}
