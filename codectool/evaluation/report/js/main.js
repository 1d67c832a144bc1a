// Fill the sections.

(() => {
  const section = (name) => document.getElementById(name);
  const player = new Player(section("listen"));
  showSummary(section("summary"), (clip) => openAndShow(player, clip));
  showPlot(section("plot"));
  showClips(section("listen"), player);
  const blind = new Blind(section("blind"), player);
  showNotes(section("notes"));
  listenToKeys(player, blind);
  if (facts.clips.length > 0) player.open(0);
})();
