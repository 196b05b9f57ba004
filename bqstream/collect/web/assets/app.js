"use strict";
// The collector's page. It draws what /events sends, and keeps nothing of its own but what is chosen on the page.
(() => {
  const $ = (id) => document.getElementById(id);
  const KEPT = 900; // seconds of samples, as the collector keeps them
  const SILENT = 5000; // milliseconds without a word, where one is due twice a second
  const COLOURS = 6;
  const SVG = "http://www.w3.org/2000/svg";

  let picture = null; // the parts as they were sent last; its samples are kept in `samples`
  let samples = {}; // by name: [at, rate, lag], oldest first
  let heard = 0;
  let source = null;
  let charts = null;
  let table = null; // the one that is chosen under "Last rows"

  // ---------------------------------------------------------------- words

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const number = (value) => (value < 100 && !Number.isInteger(value) ? one : whole).format(value);
  const rate = (value) => (value < 10 ? one : whole).format(value);
  const counted = (count, noun) => `${whole.format(count)} ${noun}${count === 1 ? "" : "s"}`;

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

  // ---------------------------------------------------------------- small DOM

  function put(id, text, tone = "") {
    const element = $(id);
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

  // ---------------------------------------------------------------- now

  const STATES = {
    live: ["live", "good"], rotating: ["handing over", "good"], connecting: ["connecting", "warn"],
    waiting: ["waiting to reconnect", "warn"], idle: ["idle", ""], closed: ["closed", "bad"],
  };

  function showState() {
    const broken = picture.collectors.filter(({ status }) => ["retrying", "failed"].includes(status.state) || status.overdue);
    if (broken.length) {
      const failed = broken.some(({ status }) => status.state === "failed");
      put("state", failed ? "failed" : "the sink takes nothing", "bad");
    } else {
      const [text, tone] = picture.client ? STATES[picture.client.state] || [picture.client.state, ""] : ["starting", ""];
      put("state", text, tone);
    }
    put("since", `Collecting for ${span(picture.at - seconds(picture.started))}, since ${when(picture.started)}`);
  }

  function showTiles() {
    const { client, collectors, at } = picture;
    const sum = (value) => collectors.reduce((total, item) => total + value(item), 0);
    put("rate", rate(sum((item) => item.rate)));
    document.title = `${rate(sum((item) => item.rate))}/s · bqstream`;
    put("rows", `of ${counted(sum(({ status }) => status.rows), "row")}`);

    const lags = collectors.map((item) => item.lag).filter((lag) => lag !== null);
    put("lag", lags.length ? span(Math.max(...lags)) : "–");
    const overdue = collectors.some(({ status }) => status.overdue);
    const commits = collectors.map(({ status }) => seconds(status.committed_at)).filter((time) => time !== null);
    const last = commits.length ? `committed ${span(Math.max(0, at - Math.min(...commits)))} ago` : "no commit yet";
    put("committed", overdue ? "commit overdue" : last, overdue ? "bad" : "");

    const parked = collectors.some((item) => item.parked);
    put("buffer", bytes(sum((item) => item.waiting_bytes)));
    put("pending", parked ? "parked: reading too slowly" : `${counted(sum(({ status }) => status.pending_rows), "row")} to commit`, parked ? "bad" : "");

    const expires = client && seconds(client.token_expires_at);
    put("token", !client || client.state === "closed" ? "–" : expires ? countdown(expires - at) : "no expiry");
    const newest = picture.tokens.at(-1);
    const life = newest && newest.expires ? seconds(newest.expires) - seconds(newest.start) : 0;
    $("left").value = expires && life ? Math.max(0, Math.min(1, (expires - at) / life)) : client ? 1 : 0;

    put("handovers", whole.format(client ? client.rotations : 0));
    put("unproven", client && client.unproven ? `${client.unproven} unproven` : "", "warn");
    put("reconnects", whole.format(client ? client.reconnects : 0));
    put("shed", picture.shed ? `${picture.shed} for slow reading` : "", "warn");
    const holes = sum(({ status }) => status.holes);
    const closing = collectors.some((item) => item.closing);
    put("gapcount", whole.format(sum(({ status }) => status.gaps)));
    put("holes", holes ? counted(holes, "hole") : closing ? "closing one now" : "no hole", holes ? "bad" : closing ? "warn" : "");
  }

  const TONES = { collecting: "good", retrying: "bad", failed: "bad", starting: "warn", stopping: "warn" };

  function showSubscriptions() {
    const body = $("subscriptions").tBodies[0];
    const rows = [];
    picture.collectors.forEach((item, index) => {
      const { status } = item;
      const cell = (label, text, tone = "") => make("td", { class: `n ${tone}`, "data-label": label }, text);
      const commit = status.committed_at ? `${span(Math.max(0, picture.at - seconds(status.committed_at)))} ago` : "–";
      const gaps = status.holes ? `${whole.format(status.gaps)}, ${counted(status.holes, "hole")}` : whole.format(status.gaps);
      rows.push(make("tr", { class: status.trouble ? "troubled" : "" },
        make("th", { scope: "row" }, make("span", { class: `swatch s${index % COLOURS}` }), status.name),
        make("td", { class: TONES[status.state] }, item.closing ? `${status.state}, closing a gap` : status.state),
        cell("Rows/s", rate(item.rate)),
        cell("Rows", whole.format(status.rows)),
        cell("Behind", item.lag === null ? "–" : span(item.lag)),
        cell("Waiting", whole.format(status.pending_rows)),
        cell("Last commit", commit, status.overdue ? "bad" : ""),
        cell("Took", status.commits ? `${whole.format(status.commit_seconds * 1000)} ms` : "–"),
        cell("Gaps", gaps, status.holes ? "bad" : ""),
        cell("Misfits", whole.format(status.misfits), status.misfits ? "warn" : ""),
        make("td", { class: "sink", "data-label": "Sink", title: status.sink }, status.sink),
      ));
      if (status.trouble) rows.push(make("tr", { class: "trouble" }, make("td", { colspan: "11" }, status.trouble)));
    });
    body.replaceChildren(...rows);
  }

  // ---------------------------------------------------------------- charts

  const chosen = (name) => Number(document.querySelector(`input[name=${name}]:checked`).value);
  // A process that is young does not fill what was chosen: what there is of it is shown.
  const shownSpan = (name) => Math.min(chosen(name), Math.max(60, picture.at - seconds(picture.started)));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Samples of a second are joined to what a chart of this width can show: rates by their mean, lags by their greatest.
  function binned(length) {
    const step = length <= 60 ? 1 : length <= 300 ? 2 : 5;
    const end = Math.floor(picture.at / step);
    const count = Math.floor(length / step);
    const names = picture.collectors.map(({ status }) => status.name);
    const xs = Array.from({ length: count + 1 }, (_, index) => (end - count + index) * step);
    const rates = [], lags = [];
    for (const name of names) {
      const sums = new Array(count + 1).fill(0), counts = new Array(count + 1).fill(0), greatest = new Array(count + 1).fill(null);
      for (const [at, value, lag] of samples[name] || []) {
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

  function gapBands(chart) {
    const { ctx, bbox } = chart;
    for (const { gap } of picture.gaps) {
      const left = chart.valToPos(seconds(gap.start), "x", true);
      const right = chart.valToPos(seconds(gap.end) ?? picture.at, "x", true);
      if (right < bbox.left || left > bbox.left + bbox.width) continue;
      ctx.save();
      ctx.globalAlpha = gap.closed ? 0.12 : 0.25;
      ctx.fillStyle = colour(gap.closed ? "--quiet" : gap.reason ? "--bad" : "--warn");
      const from = Math.max(left, bbox.left);
      ctx.fillRect(from, bbox.top, Math.max(2, Math.min(right, bbox.left + bbox.width) - from), bbox.height);
      ctx.restore();
    }
  }

  function makeChart(element, height, label, now) {
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font };
    const day = "{HH}:{mm}:{ss}";
    const said = (value) => (value === null || value === undefined ? "–" : label(value));
    return new uPlot({
      width: element.clientWidth, height, padding: [8, 24, 0, 0], ms: 1e-3,
      cursor: { sync: { key: "bqstream" }, drag: { x: false, y: false }, points: { size: 6 } },
      legend: { live: true, markers: { width: 0, fill: (chart, index) => colour(`--s${(index - 1) % COLOURS}`) } },
      scales: {
        x: { time: true, range: () => [picture.at - shownSpan("window"), picture.at] },
        y: { range: (chart, low, high) => [0, high > 0 ? high * 1.12 : 1] },
      },
      axes: [
        { ...axis, size: 26, space: 90, values: (chart, splits) => splits.map((at) => uPlot.fmtDate("{HH}:{mm}" + (shownSpan("window") <= 300 ? ":{ss}" : ""))(new Date(at * 1000))) },
        { ...axis, size: 52, space: 34, values: (chart, splits) => splits.map(number) },
      ],
      series: [
        { value: (chart, at) => (at === null ? "now" : uPlot.fmtDate(day)(new Date(at * 1000))), label: "Time" },
        ...picture.collectors.map(({ status }, index) => ({
          label: status.name, stroke: colour(`--s${index % COLOURS}`), width: 1.75, dash: index < COLOURS ? undefined : [7, 4], points: { show: false }, spanGaps: false,
          fill: picture.collectors.length === 1 ? colour(`--s${index}`) + "1c" : undefined,
          value: (chart, value, series, at) => said(at === null ? now(picture.collectors[index]) : value),
        })),
      ],
      hooks: { drawClear: [gapBands] },
    }, [[], ...picture.collectors.map(() => [])], element);
  }

  function showCharts() {
    const names = picture.collectors.map(({ status }) => status.name).join("\n");
    if (!charts || charts.names !== names) {
      if (charts) for (const chart of charts.all) chart.destroy();
      charts = null;
      if (!names) return;
      const rates = makeChart($("rates"), 230, (value) => `${rate(value)}/s`, (item) => item.rate);
      const lags = makeChart($("lags"), 120, span, (item) => item.lag);
      charts = { names, rates, lags, all: [rates, lags] };
    }
    const data = binned(shownSpan("window"));
    charts.rates.setData(data.rates);
    charts.lags.setData(data.lags);
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
    const steps = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
    const step = steps.find((one) => (one / (to - from)) * width >= 80) || 86400;
    const shift = new Date().getTimezoneOffset() * 60;
    const found = [];
    for (let at = Math.ceil((from - shift) / step) * step + shift; at < to; at += step) found.push(at);
    return found;
  }

  function showTimeline() {
    const box = $("timeline");
    const width = box.clientWidth, left = 52, length = shownSpan("span");
    const to = picture.at, from = to - length;
    const x = (at) => left + ((Math.min(Math.max(at, from), to) - from) / length) * (width - left - 24);
    const seen = (start, end) => (end ?? to) >= from && start <= to;
    const placed = lanes(picture.links.filter((link) => seen(seconds(link.start), seconds(link.end))));
    const rows = Math.max(1, ...placed.map(({ lane }) => lane + 1));
    const high = 16, gap = 5, tokenTop = 4, linkTop = tokenTop + high + 12, gapTop = linkTop + rows * (high + gap) + 7;
    const bottom = gapTop + high + 4, height = bottom + 16;
    const named = picture.gaps.filter(({ gap }) => seen(seconds(gap.start), seconds(gap.end)));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    svg.append(draw("title", {}, `The last ${span(length)}: ${counted(placed.length, "link")}, ${counted(named.length, "gap")}. The lists below tell the same in words.`));

    for (const at of ticks(from, to, width - left)) {
      svg.append(draw("line", { class: "tick", x1: x(at), x2: x(at), y1: 0, y2: bottom }));
      const text = length > 86400 ? new Date(at * 1000).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) : new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
      svg.append(draw("text", { x: x(at), y: height - 3, "text-anchor": "middle" }, text));
    }
    for (const [text, top] of [["token", tokenTop], ["links", linkTop], ["gaps", gapTop]]) svg.append(draw("text", { class: "lane", x: 0, y: top + 12 }, text));

    const bar = (start, end, top, name, title, text, shift = 0) => {
      const across = Math.max(3, x(end) - x(start) - 1);
      svg.append(titled(draw("rect", { class: name, x: x(start), y: top, width: across, height: high, rx: 3 }), title));
      if (text && across > text.length * 6.5 + 8 + shift) svg.append(draw("text", { class: "on", x: x(start) + 6 + shift, y: top + 12, "pointer-events": "none" }, text));
    };
    picture.tokens.forEach((token, index) => {
      const next = picture.tokens[index + 1];
      const start = seconds(token.start), end = Math.min(next ? seconds(next.start) : to, seconds(token.expires) ?? to);
      if (!seen(start, end)) return;
      const life = token.expires ? `good for ${span(seconds(token.expires) - start)}` : "never expires";
      bar(start, end, tokenTop, `token-bar${next ? "" : " live"}`, `token from ${clock(token.start)}, ${life}`, life);
    });
    const tops = new Map(placed.map(({ link, lane }) => [link.link, linkTop + lane * (high + gap)]));
    const taken = new Map(picture.links.filter((link) => link.to).map((link) => [link.to, x(seconds(link.end))]));
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

  // What somebody is marking, to copy it, is left as it is until they are done.
  function marked(element) {
    const selection = getSelection();
    return selection.type === "Range" && element.contains(selection.anchorNode);
  }

  function fill(id, entries, empty) {
    if (!marked($(id))) $(id).replaceChildren(...(entries.length ? entries : [make("li", { class: "empty" }, empty)]));
  }

  function showEvents() {
    fill("events", picture.events.toReversed().map(({ at, tone, text }) => make("li", { class: tone },
      make("time", { datetime: at }, when(at)), make("span", {}, text))), "Nothing has happened yet.");
  }

  function showGaps() {
    fill("gaps", picture.gaps.toReversed().map(({ subscription, gap }) => {
      const length = gap.end ? span(seconds(gap.end) - seconds(gap.start)) : "open";
      const state = gap.closed ? `closed: ${gap.how}` : gap.reason ? `hole: ${gap.reason}` : "being closed";
      const range = gap.low || gap.high ? `${gap.low || "…"} to ${gap.high || "…"}` : "";
      return make("li", { class: gap.closed ? "good" : gap.reason ? "hole" : "trouble" },
        make("time", { datetime: gap.start }, when(gap.start)),
        make("span", {}, `${subscription}: ${gap.cause}, ${length}; ${state}`,
          make("span", { class: "quiet" }, [gap.cubes.join(", "), range, gap.detail].filter(Boolean).join(" · "))));
    }), "No gap was named.");
  }

  function showRows() {
    if (marked($("last"))) return;
    const names = [...new Set(picture.rows.map(([name]) => name))].sort();
    if (!names.includes(table)) table = names[0] ?? null;
    const choice = $("tables");
    if (choice.dataset.names !== names.join("\n")) {
      choice.dataset.names = names.join("\n");
      choice.hidden = names.length < 2;
      choice.replaceChildren(choice.querySelector("legend"), ...names.map((name) => {
        const input = make("input", { type: "radio", name: "table", value: name });
        input.checked = name === table;
        return make("label", {}, input, make("span", {}, name));
      }));
    }
    const rows = picture.rows.filter(([name]) => name === table).slice(-20).reverse();
    const columns = [...new Set(rows.flatMap(([, cells]) => cells.map(([column]) => column)))];
    $("last").tHead.replaceChildren(make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, column.replaceAll("_", " ")))));
    $("last").tBodies[0].replaceChildren(...(rows.length ? rows.map(([, cells]) => {
      const values = new Map(cells);
      return make("tr", {}, ...columns.map((column) => {
        const value = values.get(column) ?? null;
        return make("td", { title: value, class: value === null ? "null" : "" }, value ?? "null");
      }));
    }) : [make("tr", {}, make("td", { class: "null" }, "No row was committed yet."))]));
  }

  // ---------------------------------------------------------------- what comes in

  const SHOWN = { events: showEvents, gaps: showGaps, rows: showRows };

  function show(parts) {
    if (parts.samples) {
      for (const [name, added] of Object.entries(parts.samples)) {
        const kept = (samples[name] ||= []);
        kept.push(...added);
        while (kept.length && kept[0][0] < picture.at - KEPT) kept.shift();
      }
    }
    showState();
    showTiles();
    if (parts.collectors) showSubscriptions();
    if (!document.hidden) { showCharts(); showTimeline(); }
    for (const [part, render] of Object.entries(SHOWN)) if (parts[part]) render();
  }

  function gone(is) {
    $("gone").hidden = !is;
    document.documentElement.classList.toggle("stale", is);
    if (!is) return;
    put("state", "collector gone, trying again", "bad");
    document.title = "gone · bqstream";
  }

  function take(event, whole) {
    const parts = JSON.parse(event.data);
    heard = Date.now();
    if (whole) samples = {};
    picture = whole ? parts : { ...picture, ...parts };
    gone(false);
    show(parts);
  }

  function connect() {
    if (source) source.close();
    source = new EventSource("events");
    source.addEventListener("picture", (event) => take(event, true));
    source.addEventListener("change", (event) => take(event, false));
    source.addEventListener("error", () => {
      gone(true);
      if (source.readyState === EventSource.CLOSED) refused();
    });
  }

  // An answer that is no stream ends an EventSource for good: the session is over, or something stands in between.
  async function refused() {
    try {
      const answer = await fetch(".", { redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.assign("login"); return; }
    } catch { /* it is not there yet */ }
    setTimeout(connect, 1000);
  }

  setInterval(() => {
    if (source.readyState === EventSource.OPEN && Date.now() - heard > SILENT) { gone(true); heard = Date.now(); connect(); }
  }, 1000);
  document.addEventListener("change", (event) => {
    if (!picture) return;
    if (event.target.name === "table") { table = event.target.value; showRows(); }
    if (event.target.name === "window") showCharts();
    if (event.target.name === "span") showTimeline();
  });
  document.addEventListener("visibilitychange", () => { if (picture && !document.hidden) { showCharts(); showTimeline(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (charts) for (const chart of charts.all) chart.destroy();
    charts = null;
    if (picture) showCharts();
  });
  new ResizeObserver(() => {
    if (!picture) return;
    if (charts) for (const chart of charts.all) chart.setSize({ width: $("rates").clientWidth, height: chart.height });
    showTimeline();
  }).observe(document.body);

  heard = Date.now();
  connect();
})();
