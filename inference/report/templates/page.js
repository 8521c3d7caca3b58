"use strict";
(() => {
  const values = JSON.parse(document.getElementById("values").textContent);
  const list = document.getElementById("list");
  const clips = [...list.children];
  const shown = () => [...list.children].filter((clip) => !clip.hidden);

  const quietly = (promise) => promise.catch(() => {}); // interrupted by a pause, or an error that is already shown
  const toggle = (player) => (player.paused ? quietly(player.play()) : player.pause());

  const playFrom = (player, time) => {
    const go = () => {
      player.currentTime = Math.min(time, player.duration);
    };
    if (player.readyState > 0) go();
    else {
      player.addEventListener("loadedmetadata", go, { once: true });
      player.load();
    }
    quietly(player.play());
  };

  // Load first frame and duration when a clip is about to scroll into view
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      for (const player of entry.target.querySelectorAll("audio, video")) player.preload = "metadata";
      near.unobserve(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const clip of clips) near.observe(clip);

  // One player at a time; the silent video and the position on the timeline follow the music.
  for (const track of document.querySelectorAll(".track")) {
    const seconds = Number(track.dataset.seconds);
    const player = track.querySelector(".player");
    const silent = track.querySelector(".silent");
    const head = track.querySelector(".head");
    for (const sound of track.querySelectorAll("audio, video.player")) {
      sound.addEventListener("error", () => {
        const notice = document.createElement("p");
        notice.className = "bad";
        notice.textContent = `Cannot be played: ${decodeURIComponent(sound.getAttribute("src"))}`;
        (sound.closest("label") || sound).replaceWith(notice);
      });
      sound.addEventListener("play", () => {
        for (const other of document.querySelectorAll("audio, video.player")) if (other !== sound) other.pause();
        if (sound.matches(".player")) requestAnimationFrame(follow);
      });
    }
    if (!player) continue;

    const place = () => {
      head.hidden = false;
      head.style.left = `${Math.min(100, (100 * player.currentTime) / seconds)}%`;
      if (silent && Math.abs(silent.currentTime - player.currentTime) > 0.15) {
        silent.currentTime = Math.min(player.currentTime, silent.duration || 0);
      }
    };
    const follow = () => {
      place();
      if (!player.paused) requestAnimationFrame(follow);
    };
    player.addEventListener("seeked", place);
    if (silent) {
      player.addEventListener("playing", () => quietly(silent.play()));
      player.addEventListener("pause", () => silent.pause());
      player.addEventListener("waiting", () => silent.pause());
      silent.addEventListener("click", () => toggle(player));
    }
    track.querySelector(".rows").addEventListener("click", (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      playFrom(player, ((event.clientX - box.left) / box.width) * seconds);
    });
  }

  // Find and order
  const find = document.getElementById("find");
  const order = document.getElementById("order");
  const count = document.getElementById("count");
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", () => {
    const wanted = find.value.toLowerCase();
    for (const clip of clips) clip.hidden = !clip.dataset.name.toLowerCase().includes(wanted);
    const found = shown().length;
    count.textContent = found === clips.length ? `${found} clips` : `${found} of ${clips.length} clips`;
  });
  order.addEventListener("change", () => {
    const row = values[order.value] || {};
    const sign = order.selectedOptions[0].dataset.better === "higher" ? 1 : -1;
    const key = (clip) => (clip.id in row ? sign * row[clip.id] : Infinity); // clips without a value go last
    const sorted = order.value ? [...clips].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0)) : clips;
    list.append(...sorted);
  });

  // Keys: J K select a clip, P plays, a digit switches to that soundtrack of the clip at the same position
  let current = null;
  list.addEventListener("focusin", (event) => (current = event.target.closest(".clip")));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const key = event.key.toLowerCase();
    const now = shown();
    if (!now.length) return;
    if (key === "j" || key === "k") {
      const at = now.indexOf(current);
      const next = at < 0 ? 0 : Math.max(0, Math.min(now.length - 1, at + (key === "j" ? 1 : -1)));
      now[next].focus({ preventScroll: true });
      now[next].scrollIntoView({ block: "start" });
    } else if (!event.repeat) {
      const players = [...(now.includes(current) ? current : now[0]).querySelectorAll(".player")];
      const playing = players.find((player) => !player.paused);
      if (key === "p" && players.length) toggle(playing || players[0]);
      const chosen = players[Number(key) - 1];
      if (chosen && chosen !== playing) playFrom(chosen, playing ? playing.currentTime : chosen.currentTime);
    }
  });
})();
