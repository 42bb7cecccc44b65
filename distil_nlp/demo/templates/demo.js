// The page: loads the student, passes on what is typed, and shows what comes back.
const settings = JSON.parse(document.getElementById("settings").textContent);
const [form, status, progress, result, alert] = ["form", "status", "progress", "result", "alert"].map((id) => document.getElementById(id));
const fields = [...form.querySelectorAll("textarea")], button = form.querySelector("[type=submit]");
let student = null, InputError = null;

function element(name, { text = "", className = "", ...attributes } = {}, children = []) {
  const made = Object.assign(document.createElement(name), { className });
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...(text ? [text] : []), ...children);
  return made;
}

function fail(message) {
  alert.textContent = message;
  alert.hidden = false;
  document.body.dataset.state = "failed";
}

function bar({ name, tag, value, shown, share = value, chosen = false, mark = null }) {
  const track = element("span", { className: "track", "aria-hidden": "true" });
  const filled = element("span", { className: "filled" });
  filled.style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
  track.append(filled);
  if (mark !== null) track.append(element("span", { className: "mark" }));
  if (mark !== null) track.lastChild.style.left = `${mark * 100}%`;
  const label = element("span", { className: "label", text: name }, tag ? [element("span", { className: "tag", text: tag })] : []);
  const number = element("span", { className: "value", text: shown ?? `${(value * 100).toFixed(1)} %` });
  const row = element("li", { className: chosen ? "chosen" : "" }, [label, number, track]);
  Object.assign(row.dataset, { name, value, ...(tag ? { tag } : {}), ...(chosen ? { chosen } : {}) });
  return row;
}

function part({ text, tag }) {
  if (tag === undefined) return text;
  return element("mark", { text }, tag ? [element("small", { text: tag })] : []);
}

function show({ rows = [], parts = null, number = null, ms }) {
  const shown = [];
  if (number !== null) shown.push(element("output", { className: "number", text: number.toFixed(3) }));
  if (parts) shown.push(element("p", { className: "marked" }, parts.map(part)));
  if (rows.length) shown.push(element("ol", { className: "bars" }, rows.map(bar)));
  else if (number === null) shown.push(element("p", { text: "Nothing found in this text." }));
  document.getElementById("answer").replaceChildren(...shown);
  document.getElementById("time").textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms in this browser`;
  result.hidden = false;
  result.dataset.number = Number(result.dataset.number ?? 0) + 1;
}

async function answer() {
  alert.hidden = true;
  const values = fields.map((field) => field.value), empty = fields.find((field) => !field.value.trim());
  if (empty) {
    alert.textContent = "Please write something here first.";
    alert.hidden = false;
    return empty.focus();
  }
  button.disabled = true;
  try {
    show(await student.answer(values));
  } catch (error) {
    alert.textContent = error instanceof InputError ? error.message : `The model could not read this: ${error.message ?? error}`;
    alert.hidden = false;
    result.hidden = true;
  } finally {
    button.disabled = false;
  }
}

function take(example) {
  fields.forEach((field, i) => { field.value = example[i] ?? ""; });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (student && !button.disabled) answer();
});
form.addEventListener("keydown", (event) => {
  const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey || event.target.rows === 1);
  if (sends && event.target.tagName === "TEXTAREA") {
    event.preventDefault();
    form.requestSubmit(button);
  }
});
document.querySelectorAll("[data-example]").forEach((chip) => chip.addEventListener("click", () => {
  take(settings.examples[chip.dataset.example]);
  if (student && !button.disabled) answer();
}));

async function start() {
  take(settings.examples[0]);
  if (typeof WebAssembly !== "object") {
    return fail("This browser cannot run WebAssembly, with which the model runs; it is off, or the browser is too old. In iOS’s Lockdown Mode it can be allowed for single pages.");
  }
  try {
    const models = await import("./models.js");
    InputError = models.InputError;
    student = await models.Student.load(settings, ({ loaded, total }) => { if (total) progress.value = loaded / total; });
  } catch (error) {
    return fail(`The model could not be loaded: ${error.message ?? error}. Reload the page; if that does not help, the server may lack a file, or the device memory.`);
  }
  status.hidden = true;
  button.disabled = false;
  document.body.dataset.state = "ready";
  await answer();
}

start();
