/**
 * Scripts about the core, the simple targets and dmsetup itself, here and in the real kernel. See
 * helpers/transcripts.ts.
 */
import { testScripts } from '../../helpers/transcripts.ts';

testScripts('core');
