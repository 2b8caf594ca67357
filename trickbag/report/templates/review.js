"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [PATH, TRUE, SAID, RANK, CONFIDENCE, DISTANCE, PAIR] = [0, 1, 2, 3, 4, 5, 6];
  const tools = document.getElementById("tools"), list = document.getElementById("cards");
  const cards = [...list.querySelectorAll("[data-card]")];
  const kinds = cards.map(card => card.dataset.kinds.split(" "));
  const cells = [...document.querySelectorAll("button[data-said]")];
  const grid = cells.filter(cell => cell.closest(".confusion"));
  const fixes = new Map();
  let carried = [], saved = true;
  document.documentElement.classList.add("js");

  const option = (value, text) => Object.assign(document.createElement("option"), {value, textContent: text});
  for (const field of ["true", "said"]) {
    data.shown.forEach((name, k) => tools.elements[field].append(option(k, name)));
  }

  const order = {
    rank: (a, b) => a[RANK] - b[RANK] || b[CONFIDENCE] - a[CONFIDENCE],
    confidence: (a, b) => b[CONFIDENCE] - a[CONFIDENCE],
    distance: (a, b) => b[DISTANCE] - a[DISTANCE],
    pair: (a, b) => a[PAIR] - b[PAIR],
    path: (a, b) => (a[PATH] < b[PATH] ? -1 : 1),
  };

  const natural = {label: "rank", wrong: "confidence", copy: "pair", unlike: "distance", all: "rank"};

  function refresh() {
    const {kind, sort} = Object.fromEntries(["kind", "sort"].map(name => [name, tools.elements[name].value]));
    const [label, said] = ["true", "said"].map(name => tools.elements[name].value);
    const text = tools.elements.text.value.toLowerCase();
    let count = 0;
    cards.forEach((card, n) => {
      const image = data.images[n];
      const fits = (kind === "all" || kinds[n].includes(kind)) && (label === "" || image[TRUE] === Number(label)) &&
        (said === "" || image[SAID] === Number(said)) && image[PATH].toLowerCase().includes(text);
      card.hidden = !fits;
      count += fits;
    });
    const places = cards.map((_, n) => n).sort((a, b) => order[sort](data.images[a], data.images[b]) || a - b);
    list.append(...places.map(n => cards[n]));
    let more = "";
    for (const cell of cells) {
      const on = label === cell.dataset.true && said === cell.dataset.said;
      cell.setAttribute("aria-pressed", String(on));
      if (on && Number(cell.dataset.count) > count && !text && kind === "wrong") more = ` The cell has ${cell.dataset.count}.`;
    }
    document.getElementById("status").textContent =
      `${count} of the ${cards.length} images on this page${count ? "" : ": nothing fits. Choose Show all"}.${more}`;
  }

  function choose(cell) {
    const on = cell.getAttribute("aria-pressed") === "true";
    tools.elements.kind.value = on ? "all" : "wrong";
    tools.elements.sort.value = natural[tools.elements.kind.value];
    tools.elements.true.value = on ? "" : cell.dataset.true;
    tools.elements.said.value = on ? "" : cell.dataset.said;
    tools.elements.text.value = "";
    refresh();
    if (!on) document.getElementById("images").scrollIntoView();
  }
  cells.forEach(cell => cell.addEventListener("click", () => choose(cell)));

  // One stop for the tab key in the whole matrix; arrows go to the next cell that has images.
  const place = cell => [cell.closest("tr").rowIndex, cell.closest("td").cellIndex];
  grid.forEach((cell, n) => { cell.tabIndex = n ? -1 : 0; });
  document.querySelector(".confusion").addEventListener("keydown", event => {
    const step = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[event.key];
    if (!step || !grid.includes(event.target)) return;
    event.preventDefault();
    const [row, column] = place(event.target);
    const ahead = grid.map(cell => [cell, ...place(cell)]).map(([cell, r, c]) => {
      const [dr, dc] = [r - row, c - column];
      return {cell, along: dr * step[0] + dc * step[1], aside: Math.abs(dr * step[1]) + Math.abs(dc * step[0])};
    }).filter(one => one.along > 0).sort((a, b) => a.aside - b.aside || a.along - b.along);
    if (!ahead.length) return;
    event.target.tabIndex = -1;
    ahead[0].cell.tabIndex = 0;
    ahead[0].cell.focus();
  });

  // A list of classes is filled when it is asked for: with many classes, all lists together are too many.
  const number = element => Number(element.closest("[data-card]").dataset.card);
  function fill(select) {
    if (select.options.length > 1) return;
    const [, label, said] = data.images[number(select)];
    const others = data.shown.map((_, k) => k).filter(k => k !== label && k !== said);
    for (const k of said >= 0 && said !== label ? [said, ...others] : others) select.append(option(k, data.shown[k]));
    select.append(option("drop", "leave this image out"));
  }

  const corrections = count => `${count} ${count === 1 ? "correction" : "corrections"}`;
  function hint(text, told) {
    const place = document.getElementById("hint");
    place.textContent = text;
    place.classList.toggle("told", Boolean(told));
  }

  function correct(select) {
    const n = number(select);
    if (select.value === "") fixes.delete(n); else fixes.set(n, select.value);
    cards[n].classList.toggle("fixed", fixes.has(n));
    const all = fixes.size + carried.length;
    saved = !all;
    document.getElementById("save").disabled = !all;
    document.getElementById("count").textContent = all ? `${corrections(all)}.` : "No corrections yet.";
    hint(all ? "Not saved yet." : "Choose the right class below an image, or leave it out.");
  }
  list.addEventListener("focusin", event => { if (event.target.matches("[data-fix]")) fill(event.target); });
  list.addEventListener("change", event => { if (event.target.matches("[data-fix]")) correct(event.target); });
  list.addEventListener("click", event => {
    const button = event.target.closest("[data-accept]");
    if (!button) return;
    const select = button.parentElement.querySelector("[data-fix]");
    fill(select);
    const said = String(data.images[number(select)][SAID]);
    select.value = select.value === said ? "" : said;
    correct(select);
  });

  const quoted = text => (/[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  document.getElementById("save").addEventListener("click", () => {
    const made = [...fixes].sort((a, b) => a[0] - b[0]).map(([n, to]) => {
      const [path, label] = data.images[n];
      return [path, data.classes[label], to === "drop" ? data.drop : data.classes[to]];
    });
    const lines = [["path", "old", "new"], ...carried, ...made].map(row => row.map(quoted).join(","));
    const file = new Blob([[...lines, ""].join("\r\n")], {type: "text/csv;charset=utf-8"});
    const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(file), download: "corrections.csv"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    saved = true;
    hint("Saved as corrections.csv. Next: trickbag train DATA --corrections corrections.csv", true);
  });

  // As trickbag reads it: quotes, any usual delimiter, columns in any order; a later line may correct what an earlier one made.
  function read(text) {
    const mark = [",", ";", "\t"].find(sign => text.split(/[\r\n]/, 1)[0].includes(sign)) || ",";
    const rows = [[""]];
    let inside = false;
    for (let at = 0; at < text.length; at += 1) {
      const sign = text[at], row = rows[rows.length - 1];
      if (inside && sign === '"' && text[at + 1] === '"') { row[row.length - 1] += '"'; at += 1; }
      else if (sign === '"' && (inside || row[row.length - 1] === "")) inside = !inside;
      else if (!inside && sign === mark) row.push("");
      else if (!inside && (sign === "\n" || sign === "\r")) rows.push([""]);
      else row[row.length - 1] += sign;
    }
    const head = rows[0].map(name => name.toLowerCase());
    const columns = ["path", "old", "new"].map(name => head.indexOf(name));
    if (columns.includes(-1)) return null;
    return rows.slice(1).filter(row => row.some(Boolean)).map(row => columns.map(k => row[k] ?? ""));
  }

  function go(rows) {
    const places = new Map(data.images.map((image, n) => [image[PATH], n])), byPath = new Map();
    rows.forEach(row => byPath.set(row[0], [...(byPath.get(row[0]) ?? []), row]));
    let misfits = 0, before = [];
    for (const [path, own] of byPath) {
      const n = places.get(path), last = own[own.length - 1][2];
      if (n === undefined) { before.push(...own); continue; }
      const label = data.classes[data.images[n][TRUE]], first = own.findIndex(row => row[1] === label);
      const k = data.classes.indexOf(last), value = k >= 0 ? String(k) : ["", "drop"].includes(last.trim()) ? "drop" : null;
      if (first < 0 && last === label) before.push(...own);  // these labels have it already
      else if (first < 0 || value === null) misfits += own.length;
      else {
        before.push(...own.slice(0, first));
        const select = cards[n].querySelector("[data-fix]");
        fill(select);
        select.value = value === String(data.images[n][TRUE]) ? "" : value;
        correct(select);
      }
    }
    return [before, misfits];
  }

  document.getElementById("load").addEventListener("change", async event => {
    const [file] = event.target.files;
    if (!file) return;
    const text = await file.text().catch(() => ""), rows = read(text), fresh = saved;
    event.target.value = "";
    if (!rows || !rows.length) {
      hint(`${file.name} has no corrections: it needs the columns path,old,new and lines below them.`, true);
      return;
    }
    const [before, misfits] = go(rows);
    carried = [...carried.filter(row => !before.some(other => other.join("\n") === row.join("\n"))), ...before];
    const all = fixes.size + carried.length;
    document.getElementById("count").textContent = all ? `${corrections(all)}.` : "No corrections yet.";
    document.getElementById("save").disabled = !all;
    saved = fresh && !misfits;
    const others = before.length ? ` ${before.length} of images that are not to be changed here are kept as they are.` : "";
    const lost = misfits ? ` ${misfits} of them fit other labels or classes than these and are left out.` : "";
    hint(`${corrections(rows.length)} read from ${file.name}.${others}${lost}`, true);
  });
  addEventListener("beforeunload", event => { if (!saved) event.preventDefault(); });

  tools.addEventListener("input", event => {
    if (event.target.name === "kind") tools.elements.sort.value = natural[event.target.value];
    refresh();
  });
  tools.addEventListener("submit", event => event.preventDefault());
  tools.addEventListener("reset", () => setTimeout(refresh));
  addEventListener("keydown", event => { if (event.key === "Escape") tools.reset(); });
  refresh();
})();
