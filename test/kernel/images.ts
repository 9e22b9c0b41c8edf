/**
 * Images of metadata for scripts that ask for them (with $I): made by our code, which makes them as
 * the kernel does, and then changed, so that both sides find the same damage.
 */
import fs from 'node:fs';
import path from 'node:path';
import { SALT } from '../../src/persistent-data/validator.ts';
import { Patient } from '../helpers/thin-damage.ts';
import { PoolImage } from '../helpers/thin-images.ts';

const DATA = 64;
const METADATA = 192;

/** Byte 2000 of a block is another; the checksum tells. */
const spoil = (patient: Patient, block: number): void => {
  patient.setU32(block, 2000, patient.u32(block, 2000) ^ 0xff);
};

const inSuperblock =
  (change: (patient: Patient) => void) =>
  (patient: Patient): void => {
    change(patient);
    patient.sealSuperblock();
  };

/** Sets a field of the superblock. */
const set32 = (offset: number, value: number): ((patient: Patient) => void) =>
  inSuperblock((patient) => patient.setU32(0, offset, value));
const set64 = (offset: number, value: number): ((patient: Patient) => void) =>
  inSuperblock((patient) => patient.setU64(0, offset, value));

/** The only leaf of device 0. */
const leafOf = (patient: Patient): number => patient.mappingNodes()[0] as number;

/** Changes a field of the header of device 0's leaf. */
const inLeaf =
  (offset: number, change: (old: number) => number) =>
  (patient: Patient): void => {
    const leaf = leafOf(patient);
    patient.setU32(leaf, offset, change(patient.u32(leaf, offset)));
    patient.sealNode(leaf);
  };

/** Scenario 38 of spec thin, change by change, and a few more. */
const changes: Record<string, (patient: Patient) => void> = {
  sound: () => undefined,
  'superblock-number': set64(8, 1),
  magic: set64(32, 27022011),
  'superblock-bytes': (patient) => spoil(patient, 0),
  'version-1': set32(40, 1),
  'version-3': set32(40, 3),
  compat: set32(352, 1),
  'flags-2': set32(4, 2),
  'metadata-block-size': set32(340, 16),
  'metadata-blocks': set64(344, 512),
  incompat: set32(360, 4),
  'compat-ro': set32(356, 1),
  'needs-check': set32(4, 1),
  'held-root': set64(56, 999),
  'data-blocks': set64(DATA, 8192),
  'metadata-map-blocks': set64(METADATA, 2048),
  'index-bytes': (patient) => spoil(patient, patient.bitmapRoot(METADATA)),
  'data-bitmap-bytes': (patient) => spoil(patient, patient.bitmap(DATA)),
  'metadata-bitmap-bytes': (patient) => spoil(patient, patient.bitmap(METADATA)),
  'details-bytes': (patient) => spoil(patient, patient.detailsRoot),
  'mapping-top-bytes': (patient) => spoil(patient, patient.mappingRoot),
  'leaf-bytes': (patient) => spoil(patient, leafOf(patient)),
  'leaf-number': inLeaf(8, (old) => old + 1),
  'leaf-max-entries': inLeaf(20, () => 353),
  'leaf-nr-entries': inLeaf(16, () => 253),
  'leaf-flags': inLeaf(4, () => 0),
  'leaf-value-size': inLeaf(24, () => 16),
  'data-index-bytes': (patient) => spoil(patient, patient.bitmapRoot(DATA)),
  'superblock-seal': (patient) => patient.seal(0, SALT.BTREE_NODE),
};

/** Writes all images into `dir`. */
export async function writeImages(dir: string): Promise<void> {
  const image = await PoolImage.make({ nrDataBlocks: 4096 });
  image.pmd.createThin(0);
  image.provision(0, 0, 4);
  const bytes = await image.bytes();
  for (const [name, change] of Object.entries(changes)) {
    const patient = new Patient(bytes);
    change(patient);
    fs.writeFileSync(path.join(dir, name), patient.bytes);
  }
}
