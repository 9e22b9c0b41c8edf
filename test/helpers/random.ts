/**
 * Seeded randomness for tests. DM_SEED replays a run; a failing test prints its seed.
 */
export { Random } from '../../src/base/random.ts';

/** The seed of this run: DM_SEED, or `fallback`. */
export function seedOf(fallback: number): number {
  const text = process.env['DM_SEED'];
  return text === undefined ? fallback : Number(text);
}
