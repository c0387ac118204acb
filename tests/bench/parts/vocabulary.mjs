// A byte-level BPE vocabulary of the size and with the special tokens of Qwen3-VL, in which given texts take one
// token for each word. As in the published one, each token beyond the bytes is made by one merge.

/** Tokens that are no text, from this id on in this order (`tokenizer.json` of Qwen3-VL, `added_tokens`). */
const FIRST_ADDED = 151_643;
const ADDED = [
  ...['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|object_ref_start|>', '<|object_ref_end|>', '<|box_start|>'],
  ...['<|box_end|>', '<|quad_start|>', '<|quad_end|>', '<|vision_start|>', '<|vision_end|>', '<|vision_pad|>'],
  ...['<|image_pad|>', '<|video_pad|>', '<tool_call>', '</tool_call>', '<|fim_prefix|>', '<|fim_middle|>'],
  ...['<|fim_suffix|>', '<|fim_pad|>', '<|repo_name|>', '<|file_sep|>', '<tool_response>', '</tool_response>'],
  ...['<think>', '</think>'],
];
/** Where the published vocabulary has the answers. */
const PUBLISHED = { Yes: 9454, No: 2753, ' Yes': 7414, ' No': 2308 };

/** Token types (`enum llama_token_type`). */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

/** Characters that stand for bytes, in the order of the ids, and by byte (`bytes_to_unicode` of GPT-2). */
function alphabet() {
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const shown = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  const hidden = bytes.filter((byte) => !shown(byte));
  const character = bytes.map((byte) => String.fromCharCode(shown(byte) ? byte : 256 + hidden.indexOf(byte)));
  return { character, ordered: [...bytes.filter(shown), ...hidden].map((byte) => character[byte]) };
}

/** Qwen2's split into words, without its rule for English contractions. */
const WORD = /[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+/gu;
export const words = (text) => text.match(WORD) ?? [];

/** Tokens of a word, by pairs whose place in `ranks` is their urgency. */
function encode(characters, ranks) {
  const tokens = [...characters];
  for (;;) {
    const urgency = tokens.slice(1).map((right, i) => ranks.get(`${tokens[i]} ${right}`) ?? Infinity);
    const most = Math.min(...urgency);
    if (most === Infinity) return tokens;
    const at = urgency.indexOf(most);
    tokens.splice(at, 2, tokens[at] + tokens[at + 1]);
  }
}

/** Pairs to merge, most urgent first, that make one token of each word. */
function merging(texts, character) {
  const ranks = new Map();
  for (const word of new Set(texts.flatMap(words))) {
    const spelled = [...Buffer.from(word)].map((byte) => character[byte]);
    // What a word adds is less urgent than all before, so these stay one token.
    const [first, ...rest] = encode(spelled, ranks);
    rest.reduce((left, right) => {
      ranks.set(`${left} ${right}`, ranks.size);
      return left + right;
    }, first);
  }
  return [...ranks.keys()].map((pair) => pair.split(' '));
}

/** Pairs of tokens that no ASCII text can reach, more than there are places for. */
function* fillers(character) {
  const foreign = character.slice(128);
  for (const first of foreign) for (const second of foreign) yield [first, second];
  for (const first of foreign)
    for (const second of foreign) for (const third of foreign) yield [first + second, third];
}

/** `tokens`, `types` and `merges` of a vocabulary of `size` tokens. */
export function vocabulary(size, texts) {
  const { character, ordered } = alphabet();
  const merges = merging([...texts, ...Object.keys(PUBLISHED), 'user', 'assistant', '\n'], character);
  const tokens = [...ordered];
  for (const [word, id] of Object.entries(PUBLISHED)) tokens[id] = word.replace(' ', character[32]);
  const placed = new Set(tokens);
  const free = [...new Set(merges.map((pair) => pair.join('')))].filter((token) => !placed.has(token)).values();
  const more = fillers(character);
  for (let id = ordered.length; id < FIRST_ADDED; id += 1) {
    if (tokens[id] !== undefined) continue;
    const { value: token, done } = free.next();
    const pair = done ? more.next().value : null;
    if (done) merges.push(pair);
    tokens[id] = done ? pair.join('') : token;
  }
  tokens.push(...ADDED);
  const types = tokens.map(() => NORMAL);
  // llama.cpp takes what looks special for special.
  ADDED.forEach((token, i) => (types[FIRST_ADDED + i] = token.startsWith('<|') ? CONTROL : USER_DEFINED));
  for (let id = tokens.length; id < size; id += 1) {
    tokens.push(`[PAD${id}]`);
    types.push(UNUSED);
  }
  return { tokens, types, merges: merges.map((pair) => pair.join(' ')) };
}
