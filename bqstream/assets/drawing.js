"use strict";
// What the collector's page and the notebook's live view draw alike. A plain script: the page loads it as it is, the
// view's module begins with it. Text that others wrote gets into the document by textContent alone.
const bqstreamDrawing = (() => {
  const COLOURS = 6;
  const SVG = "http://www.w3.org/2000/svg";

  // ---------------------------------------------------------------- words

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const number = (value) => (value < 100 && !Number.isInteger(value) ? one : whole).format(value);
  const rate = (value) => (value < 10 ? one : whole).format(value);
  const counted = (count, noun) => `${whole.format(count)} ${noun}${count === 1 ? "" : "s"}`;

  // A value of which nothing is known: 0.0000123, 12,345 and 1.2e+25 alike in a few characters.
  function amount(value) {
    const size = Math.abs(value);
    if (value && (size < 0.001 || size >= 1e15)) return value.toExponential(2).replace(/\.?0+e/, "e");
    if (size >= 1e6) return short.format(value);
    return new Intl.NumberFormat("en", { maximumSignificantDigits: 6 }).format(value);
  }

  function span(seconds) {
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    if (seconds < 120) return `${Math.round(seconds)} s`;
    if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }

  function countdown(seconds) {
    const left = Math.max(0, Math.floor(seconds));
    const pad = (value) => String(value).padStart(2, "0");
    const minutes = `${pad(Math.floor(left / 60) % 60)}:${pad(left % 60)}`;
    return left < 3600 ? minutes : `${Math.floor(left / 3600)}:${minutes}`;
  }

  function bytes(value) {
    const units = ["B", "kB", "MB", "GB"];
    let at = 0;
    while (value >= 1000 && at < 3) { value /= 1000; at += 1; }
    return `${at ? number(value) : whole.format(value)} ${units[at]}`;
  }

  const seconds = (text) => (text ? Date.parse(text) / 1000 : null);
  const clock = (text) => new Date(text).toLocaleTimeString("en-GB");
  function when(text) {
    const at = new Date(text);
    const today = at.toDateString() === new Date().toDateString();
    return today ? clock(text) : `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock(text)}`;
  }

  // By a client's state: what it is called, and its tone.
  const STATES = {
    live: ["live", "good"], rotating: ["handing over", "good"], connecting: ["connecting", "warn"],
    waiting: ["waiting to reconnect", "warn"], idle: ["idle", ""], closed: ["closed", "bad"],
  };

  // ---------------------------------------------------------------- small DOM

  function put(element, text, tone = "") {
    const cut = /^(.*?\d) (s|min|h|days|B|kB|MB|GB)$/.exec(text);
    const shown = element.tagName === "DD" && !element.classList.contains("note") && cut;
    if (element.dataset.text !== text) {
      element.dataset.text = text;
      element.replaceChildren(shown ? cut[1] : text);
      if (shown) element.append(make("small", {}, cut[2]));
    }
    for (const name of ["good", "warn", "bad"]) element.classList.toggle(name, name === tone);
  }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function draw(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const titled = (element, text) => { element.append(draw("title", {}, text)); return element; };

  // One of several, as a group of radio buttons that looks like a switch.
  function offer(fieldset, name, options, chosen) {
    const shown = options.join("\n");
    if (fieldset.dataset.names === shown) return;
    fieldset.dataset.names = shown;
    fieldset.hidden = options.length < 2;
    fieldset.replaceChildren(fieldset.querySelector("legend"), ...options.map((option) => {
      const input = make("input", { type: "radio", name, value: option });
      input.checked = option === chosen;
      return make("label", {}, input, make("span", {}, option));
    }));
  }

  // What somebody is marking, to copy it, is left as it is until they are done.
  function marked(element) {
    const root = element.getRootNode();
    const selection = root.getSelection ? root.getSelection() : getSelection();
    return selection !== null && selection.type === "Range" && element.contains(selection.anchorNode);
  }

  // ---------------------------------------------------------------- charts

  // A colour of the stylesheet as a canvas takes it: light-dark() and variables are resolved by a property alone.
  function palette(element) {
    let probe = element.querySelector(":scope > .probe");
    if (!probe) element.append(probe = make("span", { class: "probe", hidden: "hidden" }));
    return (name, alpha = 1) => {
      probe.style.color = `var(${name})`;
      const found = getComputedStyle(probe).color;
      return alpha === 1 ? found : found.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
    };
  }

  // Samples of a second are joined to what a chart of this width can show: rates by their mean, lags by their greatest.
  function binned(all, now, length) {
    const step = length <= 60 ? 1 : length <= 300 ? 2 : 5;
    const end = Math.floor(now / step);
    const count = Math.floor(length / step);
    const xs = Array.from({ length: count + 1 }, (_, index) => (end - count + index) * step);
    const rates = [], lags = [];
    for (const samples of all) {
      const sums = new Array(count + 1).fill(0), counts = new Array(count + 1).fill(0), greatest = new Array(count + 1).fill(null);
      for (const [at, value, lag] of samples) {
        const index = Math.floor(at / step) - end + count;
        if (index < 0 || index > count) continue;
        sums[index] += value;
        counts[index] += 1;
        if (lag !== null) greatest[index] = Math.max(lag, greatest[index] ?? 0);
      }
      // The last one is not over yet, and would fall at each beat.
      rates.push(sums.map((sum, index) => (counts[index] && index < count ? sum / counts[index] : null)));
      lags.push(greatest.map((lag, index) => (index < count ? lag : null)));
    }
    return { rates: [xs, ...rates], lags: [xs, ...lags] };
  }

  function gapBands(chart, gaps, now, colour) {
    const { ctx, bbox } = chart;
    for (const { gap } of gaps) {
      const left = chart.valToPos(seconds(gap.start), "x", true);
      const right = chart.valToPos(seconds(gap.end) ?? now, "x", true);
      if (right < bbox.left || left > bbox.left + bbox.width) continue;
      ctx.save();
      ctx.globalAlpha = gap.closed ? 0.12 : 0.25;
      ctx.fillStyle = colour(gap.closed ? "--quiet" : gap.reason ? "--bad" : "--warn");
      const from = Math.max(left, bbox.left);
      ctx.fillRect(from, bbox.top, Math.max(2, Math.min(right, bbox.left + bbox.width) - from), bbox.height);
      ctx.restore();
    }
  }

  // A chart over time, up to now. `frame()` gives {now, length, gaps}; each line is {name, colour, dashed, filled, dots,
  // joined, now()}; `label` words a value, `y` is a scale of its own, `marks` says where that has lines.
  function makeChart(element, { height, lines, label, frame, key, y = {}, size = 52, space = 34, marks, values = (splits) => splits.map(number) }) {
    const colour = palette(element);
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font };
    const day = "{HH}:{mm}:{ss}";
    const said = (value) => (value === null || value === undefined ? "–" : label(value));
    return new uPlot({
      width: element.clientWidth, height, padding: [8, 24, 0, 0], ms: 1e-3,
      cursor: { sync: { key }, drag: { x: false, y: false }, points: { size: 6 } },
      legend: { live: true, markers: { width: 0, fill: (chart, index) => colour(`--s${lines[index - 1].colour % COLOURS}`) } },
      scales: {
        x: { time: true, range: () => { const { now, length } = frame(); return [now - length, now]; } },
        y: { range: (chart, low, high) => [0, high > 0 ? high * 1.12 : 1], ...y },
      },
      axes: [
        { ...axis, size: 26, space: 90, values: (chart, splits) => splits.map((at) => uPlot.fmtDate("{HH}:{mm}" + (frame().length <= 300 ? ":{ss}" : ""))(new Date(at * 1000))) },
        { ...axis, size, space, values: (chart, splits) => values(splits), ...(marks ? { filter: marks, grid: { ...axis.grid, filter: marks } } : {}) },
      ],
      series: [
        { value: (chart, at) => (at === null ? "now" : uPlot.fmtDate(day)(new Date(at * 1000))), label: "Time" },
        ...lines.map((line) => ({
          label: line.name, stroke: colour(`--s${line.colour % COLOURS}`), width: 1.75, dash: line.dashed ? [7, 4] : undefined, spanGaps: line.joined === true,
          points: { show: false },
          fill: line.filled ? colour(`--s${line.colour}`, 0.11) : undefined,
          value: (chart, value, series, at) => said(at === null ? line.now() : value),
          ...(line.dots ? { paths: () => null, points: { show: true, size: 5, width: 0, fill: colour(`--s${line.colour}`, 0.55), stroke: "transparent" } } : {}),
        })),
      ],
      hooks: { drawClear: [(chart) => { const { gaps, now } = frame(); gapBands(chart, gaps, now, colour); }] },
    }, [[], ...lines.map(() => [])], element);
  }

  // ---------------------------------------------------------------- the timeline

  // Links that lived at the same time lie below one another, in as few lanes as that takes.
  function lanes(links) {
    const ends = [];
    return links.map((link) => {
      const start = seconds(link.start);
      let lane = ends.findIndex((end) => end <= start);
      if (lane < 0) lane = ends.length;
      ends[lane] = seconds(link.end) ?? Infinity;
      return { link, lane };
    });
  }

  function ticks(from, to, width) {
    const steps = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
    const step = steps.find((one) => (one / (to - from)) * width >= 80) || 86400;
    const shift = new Date().getTimezoneOffset() * 60;
    const found = [];
    for (let at = Math.ceil((from - shift) / step) * step + shift; at < to; at += step) found.push(at);
    return { found, step };
  }

  function tickText(at, length, step) {
    const moment = new Date(at * 1000), minute = { hour: "2-digit", minute: "2-digit" };
    if (length > 86400) return moment.toLocaleString("en-GB", { day: "numeric", month: "short", ...minute });
    return moment.toLocaleTimeString("en-GB", step < 60 ? { ...minute, second: "2-digit" } : minute);
  }

  // Tokens, links and gaps of {links, tokens, gaps} in the `length` seconds before `to`, drawn into `box`.
  function drawTimeline(box, { links, tokens, gaps }, to, length) {
    const width = box.clientWidth, left = 52;
    const from = to - length;
    const x = (at) => left + ((Math.min(Math.max(at, from), to) - from) / length) * (width - left - 24);
    const seen = (start, end) => (end ?? to) >= from && start <= to;
    const placed = lanes(links.filter((link) => seen(seconds(link.start), seconds(link.end))));
    const rows = Math.max(1, ...placed.map(({ lane }) => lane + 1));
    const high = 16, gap = 5, tokenTop = 4, linkTop = tokenTop + high + 12, gapTop = linkTop + rows * (high + gap) + 7;
    const bottom = gapTop + high + 4, height = bottom + 16;
    const named = gaps.filter(({ gap }) => seen(seconds(gap.start), seconds(gap.end)));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    svg.append(draw("title", {}, `The last ${span(length)}: ${counted(placed.length, "link")}, ${counted(named.length, "gap")}. The lists below tell the same in words.`));

    const { found, step } = ticks(from, to, width - left);
    for (const at of found) {
      svg.append(draw("line", { class: "tick", x1: x(at), x2: x(at), y1: 0, y2: bottom }));
      svg.append(draw("text", { x: x(at), y: height - 3, "text-anchor": "middle" }, tickText(at, length, step)));
    }
    for (const [text, top] of [["token", tokenTop], ["links", linkTop], ["gaps", gapTop]]) svg.append(draw("text", { class: "lane", x: 0, y: top + 12 }, text));

    const bar = (start, end, top, name, title, text, shift = 0) => {
      const across = Math.max(3, x(end) - x(start) - 1);
      svg.append(titled(draw("rect", { class: name, x: x(start), y: top, width: across, height: high, rx: 3 }), title));
      if (text && across > text.length * 6.5 + 8 + shift) svg.append(draw("text", { class: "on", x: x(start) + 6 + shift, y: top + 12, "pointer-events": "none" }, text));
    };
    tokens.forEach((token, index) => {
      const next = tokens[index + 1];
      const start = seconds(token.start), end = Math.min(next ? seconds(next.start) : to, seconds(token.expires) ?? to);
      if (!seen(start, end)) return;
      const life = token.expires ? `good for ${span(seconds(token.expires) - start)}` : "never expires";
      bar(start, end, tokenTop, `token-bar${next ? "" : " live"}`, `token from ${clock(token.start)}, ${life}`, life);
    });
    const tops = new Map(placed.map(({ link, lane }) => [link.link, linkTop + lane * (high + gap)]));
    const taken = new Map(links.filter((link) => link.to).map((link) => [link.to, x(seconds(link.end))]));
    for (const { link } of placed) {
      const top = tops.get(link.link), end = seconds(link.end) ?? to;
      const ended = link.end ? `${link.how}${link.to ? ` to link ${link.to}` : ""} ${clock(link.end)}` : "live";
      bar(seconds(link.start), end, top, `link-bar${link.end ? "" : " live"}`, `link ${link.link} from ${clock(link.start)}, ${ended}`, `link ${link.link}`, Math.max(0, (taken.get(link.link) ?? 0) - x(seconds(link.start))));
      if (link.end && ["lost", "stalled", "shed"].includes(link.how)) {
        svg.append(titled(draw("line", { class: "lost-mark", x1: x(end), x2: x(end), y1: top - 2, y2: top + high + 2 }), `link ${link.link} ${ended}`));
      }
    }
    for (const { link } of placed) {
      if (!link.to || !tops.has(link.to) || seconds(link.end) < from) continue;
      const at = x(seconds(link.end)), old = tops.get(link.link) + high / 2, young = tops.get(link.to) + high / 2;
      svg.append(titled(draw("line", { class: "handover-mark", x1: at, x2: at, y1: old, y2: young }), `hand-over from link ${link.link} to ${link.to}`));
      svg.append(draw("circle", { class: "handover-dot", cx: at, cy: young, r: 3.5 }));
    }
    for (const { subscription, gap: one } of named) {
      const kind = one.closed ? "closed" : one.reason ? "hole" : "closing";
      bar(seconds(one.start), seconds(one.end) ?? to, gapTop, `gap-${kind}`, `${subscription}: ${one.cause}, ${kind}`);
    }
    box.replaceChildren(svg);
  }

  // ---------------------------------------------------------------- lists

  function fill(list, entries, empty) {
    if (!marked(list)) list.replaceChildren(...(entries.length ? entries : [make("li", { class: "empty" }, empty)]));
  }

  function listEvents(list, events) {
    fill(list, events.toReversed().map(({ at, tone, text }) => make("li", { class: tone },
      make("time", { datetime: at }, when(at)), make("span", {}, text))), "Nothing has happened yet.");
  }

  function listGaps(list, gaps) {
    fill(list, gaps.toReversed().map(({ subscription, gap }) => {
      const length = gap.end ? span(seconds(gap.end) - seconds(gap.start)) : "open";
      const state = gap.closed ? `closed: ${gap.how}` : gap.reason ? `hole: ${gap.reason}` : "being closed";
      const range = gap.low || gap.high ? `${gap.low || "…"} to ${gap.high || "…"}` : "";
      return make("li", { class: gap.closed ? "good" : gap.reason ? "hole" : "trouble" },
        make("time", { datetime: gap.start }, when(gap.start)),
        make("span", {}, `${subscription}: ${gap.cause}, ${length}; ${state}`,
          make("span", { class: "quiet" }, [gap.cubes.join(", "), range, gap.detail].filter(Boolean).join(" · "))));
    }), "No gap was named.");
  }

  // The newest rows of one table, the newest first; rows are [table, [[column, text or null], …]], oldest first.
  function listRows(table, rows, empty) {
    if (marked(table)) return;
    const newest = rows.slice(-20).reverse();
    const columns = [...new Set(newest.flatMap(([, cells]) => cells.map(([column]) => column)))];
    table.tHead.replaceChildren(make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, column.replaceAll("_", " ")))));
    table.tBodies[0].replaceChildren(...(newest.length ? newest.map(([, cells]) => {
      const values = new Map(cells);
      return make("tr", {}, ...columns.map((column) => {
        const value = values.get(column) ?? null;
        return make("td", { title: value, class: value === null ? "null" : "" }, value ?? "null");
      }));
    }) : [make("tr", {}, make("td", { class: "null" }, empty))]));
  }

  return {
    COLOURS, STATES, amount, binned, bytes, clock, countdown, counted, drawTimeline, listEvents, listGaps, listRows, make, makeChart,
    number, offer, put, rate, seconds, span, when, whole,
  };
})();
