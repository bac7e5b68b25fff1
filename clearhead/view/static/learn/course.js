// The guided path of ten steps, the eight questions and the presets: their texts and their states.

export const PRESETS = [
  {
    name: 'Right angles',
    set: {
      vectors: [
        [1, 0],
        [0, 1],
      ],
      row: 1,
      column: 0,
      show: 'scores',
      told: false,
    },
  },
  {
    name: 'Same twice',
    set: {
      vectors: [
        [1, 0.5],
        [1, 0.5],
      ],
      row: 1,
      column: 0,
    },
  },
  {
    name: 'Opposite',
    set: {
      vectors: [
        [1, 0.5],
        [-1, -0.5],
      ],
      row: 1,
      column: 0,
    },
  },
  {
    name: 'One large',
    set: {
      vectors: [
        [3, 0],
        [0.5, 0.5],
        [0.6, 0.2],
      ],
      row: 2,
      column: 0,
    },
  },
  {
    name: 'All zero',
    set: {
      vectors: [
        [0, 0],
        [0, 0],
        [0, 0],
      ],
      row: 2,
      column: 0,
      told: true,
    },
  },
  { name: 'A sentence', set: { text: 'a red apple and a green pear', vectors: null } },
  { name: 'Two meanings', set: { text: 'the river flooded the bank and the money bank', vectors: null } },
];

const SENTENCE = { text: 'a red apple and a green pear', vectors: null, axes: 'two', row: -1, column: 2 };
const RIGHT = PRESETS[0].set;

export const PATH = [
  {
    title: 'Words become vectors',
    say: 'Each word is an arrow. Two long ones that point alike have a large score.',
    set: { ...SENTENCE, show: 'scores', question: null },
  },
  {
    title: 'Later is not seen',
    say: 'A word looks at itself and back, never ahead. Choose an upper row: it has less to see.',
    set: { ...SENTENCE, row: 2, column: 1, show: 'scores', question: null },
  },
  {
    title: 'Always above zero',
    say: 'exp makes every score positive: −1 becomes 0.368, 0 becomes 1.',
    set: { ...SENTENCE, show: 'exponentials', question: 0 },
  },
  {
    title: 'Shares of one total',
    say: 'Divided by their sum, they are weights: that is softmax. Follow a column down.',
    set: { ...SENTENCE, show: 'weights', question: 1 },
  },
  {
    title: 'The sum, tip to tail',
    say: 'Weight × vector, one behind the other, ends between all that is seen.',
    set: { ...SENTENCE, show: 'weights', question: 2 },
  },
  {
    title: 'Zero is not nothing',
    say: 'Guess before you look: at right angles, what share is left?',
    set: { ...RIGHT, question: null },
  },
  {
    title: 'If the formula were another',
    say: 'Under What if, try other formulas, and read what follows.',
    set: { ...SENTENCE, row: 3, column: 2, show: 'weights', formula: 'mask-after-softmax', question: 3 },
  },
  {
    title: 'Three matrices, and a scale',
    say: 'A fruit asks for a colour: q asks, k is found, v is given.',
    set: { ...SENTENCE, show: 'weights', matrices: 'designed', scaled: true, column: 5, question: 4 },
  },
  {
    title: 'Order and length',
    say: 'Shuffle the past: the last row stays, until positions are told.',
    set: { ...SENTENCE, show: 'weights', question: 6 },
  },
  {
    title: 'A learned head',
    say: 'Trained on books. Where a piece comes again, it looks at what came next.',
    set: {
      text: 'The river was wide. The river',
      vectors: null,
      learned: '3.3',
      row: -1,
      column: null,
      show: 'weights',
      question: null,
    },
  },
];

export const QUESTIONS = [
  {
    ask: 'A score is 0. What is the weight?',
    options: ['more than 0', '0', 'it depends on whether it is the first'],
    right: 0,
    hint: 'Look at the middle stage: what does a score of 0 become there?',
    why: 'exp(0) is 1, a whole unit of the total. Only being hidden (later, or out of a window), a score of −∞, or a number too small for the computer gives none.',
  },
  {
    ask: 'What do the weights of a row add up to?',
    options: ['the sum of the scores', 'the number of items seen', '1'],
    right: 2,
    hint: 'Add up the last stage of the chosen row.',
    why: 'Softmax divides each exponential by the row’s total. Without it, the sum would be that of the scores: anything.',
  },
  {
    ask: 'n items of d numbers go in. Which shape comes out? And which, if it ended with the weights?',
    options: ['(n, n), and (n, d)', '(n, d), and (n, n)', '(d, d), and (n, d)'],
    right: 1,
    hint: 'The shapes stand under the scores and under the picture.',
    why: 'Weights (n, n) times vectors (n, d) are n new vectors (n, d). Without values (V) the weights themselves are left: (n, n).',
  },
  {
    ask: 'Why is the future hidden before the softmax, not after?',
    options: ['hidden after, its exponentials would stay in the total', 'it is quicker', 'it makes no difference'],
    right: 0,
    hint: 'Choose “mask after softmax” under What if, and add up a row.',
    why: 'Weights must share one total among what is seen. Hidden after, they would not add up to 1, and the future would show in them.',
  },
  {
    ask: 'What do the three matrices add?',
    options: [
      'more memory',
      'they keep scores small',
      'an item may ask for one thing, be found by another and give a third',
    ],
    right: 2,
    hint: 'Switch the matrices to “none”: what can a fruit look for then?',
    why: 'W^Q makes what an item asks for, W^K what it is found by, W^V what it gives. In the first approach all three are the item itself.',
  },
  {
    ask: 'Why are scores divided by √d?',
    options: ['a sum of d products spreads like √d', 'to make them add up to 1', 'so that none is negative'],
    right: 0,
    hint: 'Open a learned head, where d = 32, and choose “no scale”.',
    why: 'Where d is large, undivided sums make softmax choose one item only; divided by d, all weights would come near to equal. A learned head, with d = 32, shows it.',
  },
  {
    ask: 'The text is twice as long. How much more work is it, and what does a cache save?',
    options: ['twice; nothing', 'about four times; half of it', 'about four times; one more item costs one row'],
    right: 2,
    hint: '“Grow the length” counts both.',
    why: 'Every pair is one score: n(n + 1) ÷ 2 of them. With keys and values kept, a further item needs its own row alone. A recurrent network costs n, but must wait for each step, and carries all it read in one vector.',
  },
  {
    ask: 'The earlier words are shuffled. What changes for the last one?',
    options: ['all of its weights', 'nothing, unless positions are told', 'only the largest'],
    right: 1,
    hint: 'Press “Shuffle the past”, and compare the last row.',
    why: 'A score compares two items wherever they stand, and a sum has no order. Positions (rotary, ALiBi) bring order in.',
  },
];

export const FORMULAS = [
  ['right', 'as it is'],
  ['no-softmax', 'no softmax'],
  ['scores-as-weights', 'scores ÷ their sum'],
  ['no-values', 'no values'],
  ['values=keys', 'values = keys'],
  ['keys=values', 'keys = values'],
  ['no-scale', 'no scale'],
  ['divide-by-d', 'divided by d'],
  ['mask-after-softmax', 'mask after softmax'],
  ['no-mask', 'no mask'],
];
