"use strict";
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const find = (name) => document.getElementById(name);
function write(field) {
  const text = field.value.trim(), kind = field.dataset.kind;
  if (text === "") return "null";
  if (kind === "text") return JSON.stringify(field.value);
  if (kind === "number") return NUMBER.test(text) ? text : JSON.stringify(field.value);
  try { JSON.parse(text); return text; } catch { return JSON.stringify(field.value); }
}
function sum(answer) {
  const scores = Object.entries(answer.scores || {}).map(([name, score]) => name + " " + score);
  const named = ["decision", "score"].filter((name) => name in answer).map((name) => name + " " + answer[name]);
  return [...named, ...scores, ...(answer.detail ? [answer.detail] : [])].join(", ");
}
async function ask(event) {
  event.preventDefault();
  const fields = [...event.target.querySelectorAll("[data-kind]")];
  const body = "{" + fields.map((one) => JSON.stringify(one.name) + ": " + write(one)).join(", ") + "}";
  const headers = {"Content-Type": "application/json"};
  find("sent").textContent = body;
  find("result").textContent = "...";
  find("answer").textContent = "";
  try {
    const reply = await fetch("./score", {method: "POST", headers, body});
    let shown = await reply.text(), result = "";
    try { const answer = JSON.parse(shown); result = sum(answer); shown = JSON.stringify(answer, null, 2); } catch {}
    find("result").textContent = result || "HTTP " + reply.status;
    find("answer").textContent = "HTTP " + reply.status + "\n" + shown;
  } catch (error) {
    find("result").textContent = "no answer: " + error.message;
  }
}
find("form").addEventListener("submit", ask);
