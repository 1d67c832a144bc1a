// Fill the sections of the page.

(() => {
  const section = (id) => document.getElementById(id);
  const player = new Player(section("listen"));
  showSummary(section("summary"), (clip) => openAndShow(player, clip));
  showChart(section("chart"));
  showClips(section("listen"), player);
  const blindTest = new BlindTest(section("blind"), player);
  showNotes(section("notes"));
  listenToShortcuts(player, blindTest);
  if (evaluation.clips.length > 0) player.open(0);
})();
