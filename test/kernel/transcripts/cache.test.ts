/**
 * Scripts about the cache target, here and in the real kernel. See helpers/transcripts.ts.
 */
import { testScripts } from '../../helpers/transcripts.ts';

testScripts('cache');
