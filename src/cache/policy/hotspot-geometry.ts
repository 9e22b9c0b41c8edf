/**
 * The geometry of the hotspot queue: how large the regions of the origin are whose accesses it
 * counts, and how many of them it knows at a time (spec: cache, 15.2, 15.3).
 */
import { divDown } from '../../base/numbers.ts';
import { NR_LEVELS } from './multi-queue.ts';

const BLOCKS_PER_HOTSPOT_MAX = 16;
const NR_HOTSPOTS_MIN = 1024;
const CACHE_BLOCKS_PER_HOTSPOT = 4;

export interface HotspotGeometry {
  /** Cache blocks in a hotspot block. */
  readonly blocksPerHotspot: number;
  /** Hotspot blocks that are known at a time. */
  readonly nrHotspots: number;
  /** How many of them belong into the top levels: about as many as the cache can hold. */
  readonly nrInTopLevels: number;
}

/** The geometry for a cache: the known hotspot blocks do not cover more than the origin. */
export function hotspotGeometry(
  nrCacheBlocks: number,
  blockSectors: number,
  originSectors: number,
): HotspotGeometry {
  const nrHotspots = Math.max(divDown(nrCacheBlocks, CACHE_BLOCKS_PER_HOTSPOT), NR_HOTSPOTS_MIN);
  let blocksPerHotspot = BLOCKS_PER_HOTSPOT_MAX;
  while (blocksPerHotspot > 1 && blocksPerHotspot * blockSectors * nrHotspots > originSectors) {
    blocksPerHotspot /= 2;
  }
  const nrThatFit = divDown(nrCacheBlocks, blocksPerHotspot);
  return {
    blocksPerHotspot,
    nrHotspots,
    nrInTopLevels: Math.min(divDown(nrHotspots, NR_LEVELS), nrThatFit),
  };
}
