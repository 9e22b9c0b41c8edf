/**
 * Scripts about the thin targets, here and in the real kernel. See helpers/transcripts.ts.
 */
import { testScripts } from '../../helpers/transcripts.ts';

testScripts('thin');
