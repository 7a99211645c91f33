// SPDX-License-Identifier: Apache-2.0
"use strict";

const COLOURS = ["blue", "vermilion", "green", "purple", "ochre", "grey"];
const MOST_ROWS = 6; // of a table that is shown unfolded
const DOES = {
  tagger: "finds entities",
  classifier: "chooses a class",
  scorer: "gives a score",
  encoder: "turns a text into a vector",
};
const colourOf = {}; // of a type of entity, the same for all models
const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const answersQuestions = (kind) => kind.endsWith("answerer");
const does = (kind) => (answersQuestions(kind) ? "answers the question" : DOES[kind] ?? kind);
let models = [];
let running = new AbortController();

function element(name, text, parent, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  parent?.append(made);
  return made;
}

// Fonts and screen readers go by the language; of scripts that others share too it is not known.
function markLanguage(shown, text) {
  if (/\p{Script=Hangul}/u.test(text)) shown.lang = "ko";
  else if (/[\p{Script=Hiragana}\p{Script=Katakana}]/u.test(text)) shown.lang = "ja";
  else if (/\p{Script=Han}/u.test(text)) shown.lang = "zh";
  return shown;
}

// Rows are of a name and further cells; a share among them is drawn as a bar, too.
function showTable(box, caption, columns, rows) {
  const parts = [rows.slice(0, MOST_ROWS), rows.slice(MOST_ROWS)];
  for (const [number, part] of parts.entries()) {
    if (!part.length) continue;
    let parent = box;
    if (number) {
      parent = element("details", undefined, box);
      element("summary", `${part.length} more`, parent);
    }
    const table = element("table", undefined, parent);
    element("caption", number ? `${caption}, the others` : caption, table);
    const head = element("tr", undefined, element("thead", undefined, table));
    for (const column of columns) {
      if (!column) element("td", undefined, head); // of bars, which say what stands beside them
      else element("th", column, head, column === columns.at(-1) ? "number" : "").scope = "col";
    }
    const body = element("tbody", undefined, table);
    for (const [name, ...cells] of part) {
      const row = element("tr", undefined, body);
      markLanguage(element("th", name, row), name).scope = "row";
      for (const cell of cells) {
        if (cell instanceof Element) element("td", undefined, row, "bar").append(cell);
        else element("td", cell, row, cell === cells.at(-1) ? "number" : "");
      }
    }
  }
}

function bar(share) {
  const made = document.createElement("i");
  made.style.width = percent(Math.min(1, Math.max(0, share)));
  return made;
}

// Offsets count code points, as Python does; JavaScript's strings count UTF-16 units.
function showParts(box, text, parts) {
  const characters = Array.from(text);
  const shown = markLanguage(element("div", undefined, box, "text"), text);
  let at = 0;
  for (const { start, end, label } of parts) {
    shown.append(characters.slice(at, start).join(""));
    colourOf[label] ??= COLOURS[Object.keys(colourOf).length % COLOURS.length];
    const mark = element("mark", characters.slice(start, end).join(""), shown, colourOf[label]);
    element("small", label, mark);
    at = end;
  }
  shown.append(characters.slice(at).join(""));
}

function showEntities(box, text, entities) {
  if (!entities.length) element("p", "No entity found.", box, "soft");
  showParts(box, text, entities);
  const rows = entities.map(({ text, label, score }) => [text, label, percent(score)]);
  const count = `${rows.length} ${rows.length === 1 ? "entity" : "entities"}, as they come`;
  showTable(box, count, ["found", "type", "certainty"], rows);
}

function showScores(box, label, scores) {
  const sorted = Object.entries(scores).sort((a, b) => b[1] - a[1]);
  element("strong", label, element("p", "Likeliest: ", box));
  const rows = sorted.map(([name, share]) => [name, bar(share), percent(share)]);
  showTable(box, "Probability of every class", ["class", "", "probability"], rows);
}

function showAnswers(box, text, answers) {
  if (!answers.length) return element("p", "No answer found.", box, "soft");
  const [best] = answers;
  const told = element("p", "Answer: ", box);
  markLanguage(element("strong", best.text, told), best.text);
  showParts(box, text, [{ ...best, label: "answer" }]);
  const rows = answers.map(({ text, score }) => [text, percent(score)]);
  showTable(box, "Likeliest answers", ["answer", "share of all considered"], rows);
}

function showVectors(box, [first, second]) {
  const length = (vector) => Math.hypot(...vector);
  if (second) {
    const product = first.reduce((sum, number, place) => sum + number * second[place], 0);
    const told = element("p", "The two texts are alike by ", box);
    element("strong", (product / (length(first) * length(second))).toFixed(3), told);
    told.append(" (cosine of their vectors; 1 is the same direction, 0 nothing in common)");
  }
  const numbers = `The vector of the text has ${first.length} numbers and the length `;
  element("p", `${numbers}${length(first).toFixed(3)}. It begins with:`, box);
  element("pre", first.slice(0, 6).join(", "), box);
  const folded = element("details", undefined, box);
  element("summary", `All ${first.length} numbers`, folded);
  element("pre", JSON.stringify(first), folded);
}

// A refusal says why, in JSON; a failure, or a proxy in front of the server, says it in text.
async function fetchJson(...request) {
  const answer = await fetch(...request).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  });
  if (answer.ok) return answer.json();
  const body = await answer.json().catch(() => null);
  const reason = typeof body?.detail === "string" ? body.detail : answer.statusText;
  throw new Error(`${reason} (${answer.status})`);
}

function asked(kind, text, question, second) {
  if (answersQuestions(kind)) return { questions: [{ question, context: text }] };
  if (kind === "scorer" && second) return { pairs: [[text, second]] };
  return { texts: kind === "encoder" && second ? [text, second] : [text] };
}

function showError(box, message) {
  element("p", `Not read: ${message}`, box, "error");
}

async function ask({ name, kind }, [text, question, second], box, time, signal) {
  if (answersQuestions(kind) && !question.trim()) {
    throw new Error("it needs a question; ask one above");
  }
  const body = await fetchJson("v1/predict", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...asked(kind, text, question, second), model: name }),
    signal,
  });
  time.textContent = `${body.milliseconds.toFixed(1)} ms`;
  time.title = "from the request to the answer, on the server";
  const [result] = body.results;
  if (result.entities) showEntities(box, text, result.entities);
  else if (result.answers) showAnswers(box, text, result.answers);
  else if (result.scores) showScores(box, result.label, result.scores);
  else if (result.score !== undefined) {
    const of = second && kind === "scorer" ? "both texts together" : "the text";
    element("strong", result.score.toFixed(4), element("p", `Score of ${of}: `, box));
  } else showVectors(box, body.results.map(({ vector }) => vector));
}

// JSON has no half of a surrogate pair.
const valueOf = (id) => byId(id).value.toWellFormed?.() ?? byId(id).value;

async function readText() {
  running.abort(); // a text that is still being read is of no use any longer
  running = new AbortController();
  const { signal } = running;
  const given = ["text", "question", "second"].map(valueOf);
  const isEmpty = !given[0].trim();
  byId("text-error").textContent = isEmpty ? "There is no text to read. Type or paste some." : "";
  byId("text").setAttribute("aria-invalid", String(isEmpty));
  byId("text").setAttribute("aria-describedby", isEmpty ? "text-error text-hint" : "text-hint");
  byId("results").replaceChildren();
  byId("status").textContent = "";
  if (isEmpty) return byId("text").focus();
  try {
    await listModels();
  } catch (error) {
    return showError(byId("results"), error.message);
  }
  const boxes = models.map(({ name, kind }, number) => {
    const box = element("section", undefined, byId("results"), "box");
    const heading = element("h2", undefined, box);
    const title = element("b", name, heading);
    title.id = `model-${number}`;
    box.setAttribute("aria-labelledby", title.id);
    element("p", does(kind), box, "soft");
    return [box, element("span", "waits", heading)];
  });
  let failed = 0;
  for (const [number, model] of models.entries()) { // one by one, so that none waits for another
    const [box, time] = boxes[number];
    time.textContent = "reads …";
    byId("status").textContent = `Model ${number + 1} of ${models.length} reads …`;
    try {
      await ask(model, given, box, time, signal);
    } catch (error) {
      if (signal.aborted) return;
      failed += 1;
      time.textContent = "";
      showError(box, error.message);
    }
  }
  const length = Array.from(given[0]).length.toLocaleString("en");
  const count = models.length === 1 ? "1 model" : `${models.length} models`;
  const told = failed ? `; ${failed} could not read it` : "";
  byId("status").textContent = `Done: ${length} characters, ${count}${told}.`;
}

// What is asked beside the text is shown only where a model reads it.
async function listModels() {
  ({ models } = await fetchJson("v1/models"));
  const named = (isOne) => models.filter(({ kind }) => isOne(kind)).map(({ name }) => name);
  const asks = named(answersQuestions);
  const compares = named((kind) => ["scorer", "encoder"].includes(kind));
  byId("asks").hidden = !asks.length;
  byId("question-hint").textContent = `${asks.join(", ")} looks for the answer in the text.`;
  byId("compares").hidden = !compares.length;
  byId("second-hint").textContent = `${compares.join(", ")} can compare it with the first.`;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  readText();
});
byId("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});

// A link such as ?text=... reads its text at once; question=... and second=... are for the others.
const link = new URLSearchParams(location.search);
for (const id of ["text", "question", "second"]) {
  if (link.has(id)) byId(id).value = link.get(id);
}
if (link.has("text")) readText();
else listModels().catch((error) => showError(byId("results"), error.message));
