"use strict";
(() => {
  const known = JSON.parse(document.getElementById("known").textContent);
  const at = (id) => document.getElementById(id);
  const players = [...document.querySelectorAll("video")];
  const questions = Object.keys(known.questions);
  const SAME = "same";
  let state = null; // {format, test, listener, trials: [{media: [A, B], answers, heard}]}
  let now = 0;

  // Order and sides depend on test and name only, so a listener who reloads the page gets the same test.
  const generator = (text) => {
    let seed = 2166136261;
    for (const letter of text) seed = Math.imul(seed ^ letter.codePointAt(0), 16777619) >>> 0; // FNV-1a
    return () => {
      seed = (seed + 0x6d2b79f5) >>> 0; // mulberry32
      let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  };
  const shuffled = (list, random) => {
    const result = [...list];
    for (let i = result.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [result[i], result[j]] = [result[j], result[i]];
    }
    return result;
  };
  const drawn = (listener) => {
    const random = generator(`${known.test}/${listener}`);
    const trials = shuffled(known.trials, random);
    // sides are swapped in half of the pairs
    const swapped = shuffled(trials.map((_, i) => i % 2 === 1), random);
    return trials.map((media, i) => ({ media: swapped[i] ? [media[1], media[0]] : [...media], answers: {}, heard: [0, 0] }));
  };

  // Answers are kept in the browser where it allows that, else until the page is closed
  const place = (listener) => `listening/${known.test}/${listener}`;
  const keep = () => {
    try {
      localStorage.setItem(place(state.listener), JSON.stringify(state));
    } catch {
      at("notice").textContent = "This browser cannot store your answers: save them before you close the page.";
    }
  };
  const kept = (listener) => {
    try {
      return JSON.parse(localStorage.getItem(place(listener)));
    } catch {
      return null;
    }
  };

  const missing = () => {
    const trial = state.trials[now];
    const unheard = ["A", "B"].filter((_, side) => {
      const length = players[side].duration || Infinity;
      return trial.heard[side] < Math.min(known.heard, 0.9 * length);
    });
    if (unheard.length) return `Listen to ${unheard.join(" and ")} first`;
    const open = questions.filter((name) => !(name in trial.answers)).length;
    return open ? `${open} of ${questions.length} questions are unanswered` : "";
  };
  const check = () => {
    const words = missing();
    at("next").disabled = words !== "";
    if (at("missing").textContent !== words) at("missing").textContent = words;
  };

  const show = (section) => {
    for (const id of ["start", "trial", "end"]) at(id).hidden = id !== section;
    for (const player of players) player.pause();
  };
  const showTrial = (index) => {
    now = index;
    const trial = state.trials[now];
    show("trial");
    at("notice").textContent = "";
    at("progress").textContent = `Pair ${now + 1} of ${state.trials.length}`;
    players.forEach((player, side) => (player.src = `media/${trial.media[side]}.mp4`));
    for (const name of questions) {
      const choice = [trial.media[0], SAME, trial.media[1]].indexOf(trial.answers[name]);
      for (const radio of at("answers").elements[name]) radio.checked = Number(radio.value) === choice;
    }
    at("back").disabled = now === 0;
    at("next").textContent = now + 1 < state.trials.length ? "Next" : "Finish";
    check();
    players[0].focus({ preventScroll: true });
    scrollTo(0, 0);
  };
  const showEnd = () => {
    show("end");
    at("progress").textContent = `${state.listener}: all ${state.trials.length} pairs answered`;
    at("end").focus();
  };

  at("who").addEventListener("submit", (event) => {
    event.preventDefault();
    const listener = at("listener").value.trim();
    state = kept(listener) || { format: known.format, test: known.test, listener, trials: drawn(listener) };
    keep();
    const open = state.trials.findIndex((trial) => questions.some((name) => !(name in trial.answers)));
    if (open < 0) showEnd();
    else showTrial(open);
  });
  at("answers").addEventListener("change", (event) => {
    const trial = state.trials[now];
    trial.answers[event.target.name] = [trial.media[0], SAME, trial.media[1]][event.target.value];
    keep();
    check();
  });
  at("answers").addEventListener("submit", (event) => {
    event.preventDefault();
    if (missing()) return;
    if (now + 1 < state.trials.length) showTrial(now + 1);
    else showEnd();
  });
  at("back").addEventListener("click", () => showTrial(now - 1));
  at("again").addEventListener("click", () => showTrial(0));
  at("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(state, null, 1)], { type: "application/json" }));
    link.download = `answers-${known.test}-${state.listener.replace(/[^\p{L}\p{N}_-]/gu, "_")}.json`;
    link.click();
  });

  players.forEach((player, side) => {
    player.addEventListener("play", () => players[1 - side].pause());
    const listen = () => {
      if (!state || at("trial").hidden) return;
      const ranges = [...Array(player.played.length).keys()];
      const seconds = ranges.reduce((sum, i) => sum + player.played.end(i) - player.played.start(i), 0);
      const trial = state.trials[now];
      if (seconds > trial.heard[side]) trial.heard[side] = Math.round(10 * seconds) / 10;
      check();
    };
    for (const kind of ["timeupdate", "pause", "ended"]) player.addEventListener(kind, listen);
    player.addEventListener("pause", () => state && keep());
    player.addEventListener("error", () => {
      at("notice").textContent = `Video ${"AB"[side]} cannot be played in this browser; please tell whoever gave you this test.`;
    });
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || at("trial").hidden) return;
    const player = players[["a", "b"].indexOf(event.key.toLowerCase())];
    if (player) {
      if (player.paused) player.play().catch(() => {}); // an error is already shown
      else player.pause();
    } else if (event.key === "Enter" && !event.target.matches("button")) {
      event.preventDefault();
      at("answers").requestSubmit();
    }
  });
})();
