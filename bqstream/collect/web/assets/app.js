"use strict";
// The collector's page. It draws what /events sends, and keeps nothing of its own but what is chosen on the page.
(() => {
  const {
    COLOURS, STATES, binned, bytes, countdown, counted, drawTimeline, listEvents, listGaps, listRows, make, makeChart, offer, rate,
    seconds, span, when, whole,
  } = bqstreamDrawing;
  const $ = (id) => document.getElementById(id);
  const put = (id, text, tone) => bqstreamDrawing.put($(id), text, tone);
  const KEPT = 900; // seconds of samples, as the collector keeps them
  const SILENT = 5000; // milliseconds without a word, where one is due twice a second

  let picture = null; // the parts as they were sent last; its samples are kept in `samples`
  let samples = {}; // by name: [at, rate, lag], oldest first
  let heard = 0;
  let source = null;
  let charts = null;
  let table = null; // the one that is chosen under "Last rows"

  // ---------------------------------------------------------------- now

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
  const frame = () => ({ now: picture.at, length: shownSpan("window"), gaps: picture.gaps });

  function collectorsChart(element, height, label, now) {
    const alone = picture.collectors.length === 1;
    const lines = picture.collectors.map(({ status }, index) => ({
      name: status.name, colour: index, dashed: index >= COLOURS, filled: alone, now: () => now(picture.collectors[index]),
    }));
    return makeChart(element, { height, lines, label, frame, key: "bqstream" });
  }

  function showCharts() {
    const names = picture.collectors.map(({ status }) => status.name).join("\n");
    if (!charts || charts.names !== names) {
      if (charts) for (const chart of charts.all) chart.destroy();
      charts = null;
      if (!names) return;
      const rates = collectorsChart($("rates"), 230, (value) => `${rate(value)}/s`, (item) => item.rate);
      const lags = collectorsChart($("lags"), 120, span, (item) => item.lag);
      charts = { names, rates, lags, all: [rates, lags] };
    }
    const all = picture.collectors.map(({ status }) => samples[status.name] || []);
    const data = binned(all, picture.at, shownSpan("window"));
    charts.rates.setData(data.rates);
    charts.lags.setData(data.lags);
  }

  // ---------------------------------------------------------------- what happened, and rows

  const showTimeline = () => drawTimeline($("timeline"), picture, picture.at, shownSpan("span"));
  const showEvents = () => listEvents($("events"), picture.events);
  const showGaps = () => listGaps($("gaps"), picture.gaps);

  function showRows() {
    const names = [...new Set(picture.rows.map(([name]) => name))].sort();
    if (!names.includes(table)) table = names[0] ?? null;
    offer($("tables"), "table", names, table);
    listRows($("last"), picture.rows.filter(([name]) => name === table), "No row was committed yet.");
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
