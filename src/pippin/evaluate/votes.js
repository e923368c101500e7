"use strict";
// Shows pairs of responses one at a time, keeps the votes, saves them as a file. Texts are only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const pairs = data.pairs;
  const byId = (id) => document.getElementById(id);
  const kept = `pippin-votes-${data.digest}`;
  const sides = ["a", "b"];
  let place = 0, votes = {};

  function recall() {
    try {
      const found = JSON.parse(localStorage.getItem(kept));
      if (found && typeof found.votes === "object") {
        votes = found.votes;
        byId("by").value = String(found.by || "");
      }
    } catch (error) { /* no storage here: votes live as long as the page */ }
  }

  function remember() {
    try {
      localStorage.setItem(kept, JSON.stringify({ votes, by: byId("by").value }));
    } catch (error) { /* as above */ }
  }

  function element(name, class_, text) {
    const made = document.createElement(name);
    made.className = class_;
    made.textContent = text;
    return made;
  }

  const voted = () => pairs.filter((pair) => votes[pair.id] && votes[pair.id].better);
  const current = () => votes[pairs[place].id] || {};

  function show() {
    const pair = pairs[place];
    byId("prompt").replaceChildren(...pair.prompt.map((message, number) => {
      const turn = element("div", number === pair.prompt.length - 1 ? "turn asks" : "turn", "");
      turn.append(element("p", "role", message.role), element("div", "said-text", message.content));
      return turn;
    }));
    for (const side of sides) {
      byId(`text-${side}`).textContent = pair[side];
      byId(`text-${side}`).scrollTop = 0;
    }
    mark();
  }

  function mark() {
    const vote = current();
    byId("place").textContent = `Pair ${place + 1} of ${pairs.length}, ${voted().length} voted`;
    byId("back").disabled = place === 0;
    byId("on").disabled = place === pairs.length - 1;
    byId("open").disabled = voted().length === pairs.length;
    byId("save").disabled = voted().length === 0;
    for (const better of ["a", "b", "tie"]) byId(`better-${better}`).setAttribute("aria-pressed", String(vote.better === better));
    const sided = sides.includes(vote.better);
    data.levels.forEach((level, number) => {
      byId(`level-${number}`).disabled = !sided;
      byId(`level-${number}`).setAttribute("aria-pressed", String(sided && vote.level === level));
    });
    for (const side of sides) {
      byId(`side-${side}`).classList.toggle("chosen", vote.better === side);
      for (const name of data.properties) {
        const grade = ((vote.grades || {})[side] || {})[name];
        byId(`grade-${side}-${name}`).value = grade === undefined ? "" : String(grade);
      }
    }
  }

  function change(edit) {
    const vote = votes[pairs[place].id] || { better: null, level: null, grades: { a: {}, b: {} } };
    edit(vote);
    votes[pairs[place].id] = vote;
    remember();
    mark();
  }

  const better = (which) => change((vote) => {
    vote.better = which;
    if (which === "tie") vote.level = null;
  });
  const level = (number) => {
    if (sides.includes(current().better)) change((vote) => { vote.level = data.levels[number]; });
  };

  function go(to) {
    if (to < 0 || to >= pairs.length || to === place) return;
    place = to;
    show();
  }

  function open() {
    for (let step = 1; step <= pairs.length; step++) {
      const next = (place + step) % pairs.length;
      if (!(votes[pairs[next].id] || {}).better) return go(next);
    }
  }

  function save() {
    const by = byId("by").value.trim();
    if (!by) {
      byId("said").textContent = "Please write your name first: votes are kept with who gave them.";
      byId("by").focus();
      return;
    }
    if (!voted().length) return;
    const list = voted().map((pair) => ({ pair: pair.id, ...votes[pair.id] }));
    const value = { format_version: data.format_version, pairs: data.digest, by, votes: list };
    const blob = new Blob([JSON.stringify(value, null, 1) + "\n"], { type: "application/json" });
    const link = document.createElement("a");
    link.download = "votes.json";
    link.href = URL.createObjectURL(blob);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    byId("said").textContent = `${list.length} votes saved as votes.json in your downloads.`;
  }

  byId("back").addEventListener("click", () => go(place - 1));
  byId("on").addEventListener("click", () => go(place + 1));
  byId("open").addEventListener("click", open);
  byId("save").addEventListener("click", save);
  byId("by").addEventListener("input", remember);
  for (const which of ["a", "b", "tie"]) byId(`better-${which}`).addEventListener("click", () => better(which));
  data.levels.forEach((_, number) => byId(`level-${number}`).addEventListener("click", () => level(number)));
  for (const side of sides) {
    for (const name of data.properties) {
      const select = byId(`grade-${side}-${name}`);
      select.addEventListener("change", () => change((vote) => {
        if (select.value === "") delete vote.grades[side][name];
        else vote.grades[side][name] = Number(select.value);
      }));
    }
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
    const keys = { a: () => better("a"), b: () => better("b"), t: () => better("tie"),
      ArrowLeft: () => go(place - 1), ArrowRight: () => go(place + 1) };
    const number = "1234".indexOf(event.key);
    const act = number >= 0 ? () => level(number) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
  recall();
  show();
  if (current().better) open();
})();
