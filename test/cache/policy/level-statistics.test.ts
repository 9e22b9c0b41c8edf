/** The rating of a queue: its limits, and that it starts anew. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LevelStatistics, Rating } from '../../../src/cache/policy/level-statistics.ts';

test('a queue is rated by its hits in 256 accesses: poor below 16, well from 32 on', () => {
  const statistics = new LevelStatistics();
  const rate = (nrHits: number, nrMisses: number): Rating => {
    for (let i = 0; i < nrHits; i++) statistics.countLevel(48 + (i % 16));
    for (let i = 0; i < nrMisses; i++) {
      if (i % 2 === 0) statistics.countLevel(i % 48);
      else statistics.countMiss();
    }
    const { rating } = statistics;
    statistics.reset();
    return rating;
  };
  for (let round = 0; round < 2; round++) {
    assert.equal(rate(0, 0), Rating.POOR, 'nothing was counted');
    assert.equal(rate(0, 5), Rating.POOR);
    assert.equal(rate(1, 16), Rating.POOR);
    assert.equal(rate(1, 15), Rating.FAIR);
    assert.equal(rate(1, 8), Rating.FAIR);
    assert.equal(rate(1, 7), Rating.WELL);
    assert.equal(rate(10, 0), Rating.WELL);
  }
});

test('a new queue has counted nothing', () => {
  const statistics = new LevelStatistics();
  assert.equal(statistics.rating, Rating.POOR);
  statistics.countLevel(48);
  for (let i = 0; i < 7; i++) statistics.countMiss();
  assert.equal(statistics.rating, Rating.WELL);
  statistics.countLevel(47);
  assert.equal(statistics.rating, Rating.FAIR);
});
