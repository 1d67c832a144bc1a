// Fill the sections.

(() => {
  const section = (name) => document.getElementById(name);
  showSummary(section("summary"));
  showPlot(section("plot"));
  const player = new Player(section("listen"));
  showClips(section("listen"), player);
  const blind = new Blind(section("blind"), player);
  showNotes(section("notes"));
  listenToKeys(player, blind);
  if (facts.clips.length > 0) player.open(0);
})();
