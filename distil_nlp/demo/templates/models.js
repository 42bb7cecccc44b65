// Runs the student: texts become tokens, tokens logits, logits rows with a name and a number.
import * as library from "@huggingface/transformers";

const { AutoTokenizer, Tensor, env } = library;
const LONGEST_ANSWER = 30;
const SPLITS = [/[\p{L}\p{N}\p{M}]+|[^\s]/gu, /[\p{L}\p{M}]+|\p{N}+|[^\s\p{L}\p{N}\p{M}]+/gu, /\S+/gu];
const WORDS = /[\p{L}\p{N}\p{M}]+(?:['’.\-][\p{L}\p{N}\p{M}]+)*|[^\s]/gu;

const here = (path) => new URL(path, document.baseURI).href;
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "./";
env.useBrowserCache = false;
env.useWasmCache = false;
env.backends.onnx.wasm.numThreads = 1;
env.backends.onnx.wasm.wasmPaths = { mjs: here("vendor/onnxruntime-wasm.js"), wasm: here("vendor/onnxruntime.wasm") };

// A mistake of who types, told as it is.
export class InputError extends Error {}

export class Student {
  static async load(settings, onProgress) {
    const progress_callback = (event) => event.status === "progress" && event.file.endsWith(".onnx") && onProgress(event);
    const tokenizer = await AutoTokenizer.from_pretrained("model");
    const options = { dtype: settings.dtype, device: "wasm", progress_callback };
    const model = await library[settings.auto_model].from_pretrained("model", options);
    const student = new Student(settings, tokenizer, model);
    await student.run(student.encode("a"));  // the first forward of a session allocates its memory
    return student;
  }

  constructor(settings, tokenizer, model) {
    Object.assign(this, { settings, tokenizer, model, ms: 0 });
  }

  // Returns {rows, parts, number}, of which a kind of task has some, and the milliseconds of its forwards.
  async answer(values) {
    this.ms = 0;
    const found = await MODES[this.settings.mode](this, values.map((value) => value.trim()));
    return { ...found, ms: this.ms };
  }

  encode(text, pair = null) {
    const inputs = this.tokenizer(text, pair === null ? {} : { text_pair: pair });
    this.checkLength(inputs.input_ids.dims[1]);
    return inputs;
  }

  checkLength(tokens) {
    const most = this.settings.max_length;
    if (tokens > most) {
      throw new InputError(`This is too long: ${tokens} tokens (pieces of words), and the model was made for ${most}. Please shorten it.`);
    }
  }

  pieces(text) {
    return this.tokenizer.encode(text, { add_special_tokens: false });
  }

  // Special tokens before and after a text.
  frame() {
    const whole = this.tokenizer.encode("a"), inner = this.pieces("a");
    const start = whole.findIndex((_, at) => inner.every((id, i) => whole[at + i] === id));
    return [whole.slice(0, start), whole.slice(start + inner.length)];
  }

  inputsOf(ids) {
    this.checkLength(ids.length);
    const column = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    return { input_ids: column(ids), attention_mask: column(ids.map(() => 1)) };
  }

  async run(inputs) {
    const start = performance.now();
    const outputs = await this.model(inputs);
    this.ms += performance.now() - start;
    return outputs;
  }

  async logits(text, pair = null) {
    return (await this.run(this.encode(text, pair))).logits.tolist()[0];
  }
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));
const descending = (rows) => rows.sort((a, b) => b.value - a.value);
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((value) => value / sum);
}

function named(student, values) {
  return values.map((value, i) => ({ name: student.settings.labels[i] ?? `LABEL_${i}`, value }));
}

const MODES = {
  async classes(student, [text, pair = null]) {
    const rows = descending(named(student, softmax(await student.logits(text, pair))));
    return { rows: rows.map((row, i) => ({ ...row, chosen: i === 0 })) };
  },

  async labels(student, [text, pair = null]) {
    const { threshold } = student.settings;
    const rows = named(student, (await student.logits(text, pair)).map(sigmoid));
    return { rows: descending(rows.map((row) => ({ ...row, chosen: row.value >= threshold, mark: threshold }))) };
  },

  async number(student, [text, pair = null]) {
    return { number: (await student.logits(text, pair))[0] };
  },

  async scores(student, [query, documents]) {
    const rows = [];
    for (const name of lines(documents)) rows.push({ name, value: (await student.logits(query, name))[0] });
    const scores = rows.map((row) => row.value);
    const low = Math.min(...scores), range = Math.max(...scores) - low || 1;
    return { rows: descending(rows).map((row) => ({ ...row, shown: row.value.toFixed(2), share: 0.04 + 0.96 * (row.value - low) / range })) };
  },

  async vectors(student, [text, others]) {
    const first = await vector(student, text), rows = [];
    for (const name of lines(others)) rows.push({ name, value: cosine(first, await vector(student, name)) });
    return { rows: descending(rows).map((row) => ({ ...row, shown: row.value.toFixed(3), share: Math.max(0, row.value) })) };
  },

  async words(student, [text]) {
    const { mask_token: mask, mask_token_id: maskId } = student.tokenizer;
    const written = text.replace(/\[MASK\]|<mask>|\bMASK\b/g, mask);
    const inputs = student.encode(written);
    const gaps = inputs.input_ids.tolist()[0].flatMap((id, at) => (Number(id) === maskId ? [at] : []));
    if (!gaps.length) throw new InputError("Write MASK where a word is missing.");
    const logits = (await student.run(inputs)).logits, [, , words] = logits.dims;
    return { rows: gaps.flatMap((at, gap) => likeliest(student, logits.data.subarray(at * words, (at + 1) * words), gaps.length > 1 ? gap + 1 : 0)) };
  },

  async tags(student, [text]) {
    const words = [...text.matchAll(WORDS)].map((match) => ({ text: match[0], start: match.index, end: match.index + match[0].length }));
    const together = student.pieces("a b"), apart = [...student.pieces("a"), ...student.pieces("b")];
    const space = together.join() === apart.join() ? "" : " ";
    const [before, after] = student.frame(), ids = [...before];
    for (const word of words) {
      word.at = ids.length;
      ids.push(...student.pieces(space + word.text));
    }
    const logits = (await student.run(student.inputsOf([...ids, ...after]))).logits.tolist()[0];
    for (const word of words) Object.assign(word, descending(named(student, softmax(logits[word.at])))[0]);
    return { parts: partsOf(text, words), rows: entities(text, words) };
  },

  async spans(student, [question, context]) {
    const inputs = student.encode(question, context), ids = inputs.input_ids.tolist()[0].map(Number);
    const words = locate(student, context, ids);
    const outputs = await student.run(inputs);
    const start = outputs.start_logits.tolist()[0], end = outputs.end_logits.tolist()[0];
    let found = spansOf(words, start, end);
    if (student.settings.may_have_no_answer) found.push({ score: start[0] + end[0] - student.settings.threshold, from: null });
    const shares = softmax(found.map((span) => span.score));
    found = descending(found.map((span, i) => ({ ...span, value: shares[i] })));
    const name = (span) => (span.from === null ? "no answer in the text" : context.slice(span.from, span.to));
    const rows = new Map();
    for (const span of found) if (!rows.has(name(span)) && rows.size < 3) rows.set(name(span), { name: name(span), value: span.value });
    const best = found[0].from === null ? [] : [{ start: found[0].from, end: found[0].to, name: "" }];
    return { parts: partsOf(context, best), rows: [...rows.values()].map((row, i) => ({ ...row, chosen: i === 0 })) };
  },
};

async function vector(student, text) {
  const states = (await student.run(student.encode(text))).last_hidden_state.tolist()[0];
  if (student.settings.pooling === "cls") return states[0];
  const join = student.settings.pooling === "max" ? Math.max : (a, b) => a + b;
  return states.reduce((one, other) => one.map((value, i) => join(value, other[i])));  // a cosine needs no division
}

function cosine(one, other) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  return dot(one, other) / Math.sqrt(dot(one, one) * dot(other, other));
}

function likeliest(student, logits, gap) {
  const all = Array.from(softmax(Array.from(logits)), (value, id) => ({ id, value }));
  return descending(all).slice(0, gap ? 4 : 8).map(({ id, value }, i) => {
    const word = student.tokenizer.decode([id]).trim() || "(space)";
    return { name: gap ? `${gap}. ${word}` : word, value, chosen: i === 0 };
  });
}

// Words of the context with the range of their tokens, by the first way of cutting that gives the model's own tokens.
function locate(student, context, ids) {
  const [, after] = student.frame();
  for (const split of SPLITS) {
    const words = [];
    let count = 0, last = 0, own = [];
    for (const match of context.matchAll(split)) {
      const pieces = student.pieces((match.index > last ? " " : "") + match[0]);
      words.push({ start: match.index, end: match.index + match[0].length, first: count, last: count + pieces.length - 1 });
      own.push(...pieces);
      [count, last] = [own.length, match.index + match[0].length];
    }
    const at = ids.length - after.length - count;
    if (count && own.every((id, i) => ids[at + i] === id)) return words.map((word) => ({ ...word, first: at + word.first, last: at + word.last }));
  }
  throw new InputError("This text cannot be matched with the model’s tokens. Please leave out unusual characters.");
}

function spansOf(words, start, end) {
  const found = [];
  words.forEach((from, i) => {
    for (const to of words.slice(i)) {
      if (to.last - from.first >= LONGEST_ANSWER) break;
      if (to.last < from.first) continue;
      found.push({ from: from.start, to: to.end, score: Math.max(...range(from).map((at) => start[at])) + Math.max(...range(to).map((at) => end[at])) });
    }
  });
  return found;
}

const range = ({ first, last }) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

// The text in parts, those of words with a tag marked.
function partsOf(text, words) {
  const parts = [];
  let at = 0;
  for (const { start, end, name } of merged(words)) {
    parts.push({ text: text.slice(at, start) }, { text: text.slice(start, end), tag: name });
    at = end;
  }
  return [...parts, { text: text.slice(at) }].filter((part) => part.text);
}

function entities(text, words) {
  return merged(words).map(({ start, end, name, values }) => ({
    name: text.slice(start, end), tag: name, value: values.reduce((a, b) => a + b, 0) / values.length,
  }));
}

// Words of one entity together: I-X goes on after B-X or I-X; tags without B- or I- stand alone, and O is none.
function merged(words) {
  const found = [];
  let before = null;
  for (const word of words) {
    const type = word.name.replace(/^[BI]-/, "");
    if (word.name.startsWith("I-") && before === type) {
      Object.assign(found.at(-1), { end: word.end, values: [...found.at(-1).values, word.value] });
    } else if (word.name !== "O") {
      found.push({ start: word.start, end: word.end, name: type, values: [word.value] });
    }
    before = word.name === "O" ? null : type;
  }
  return found;
}
