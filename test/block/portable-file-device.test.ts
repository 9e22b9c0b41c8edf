/**
 * What FileDevice promises, where there is no koffi: the tests of file-device.test.ts once more.
 */
process.env['DEVMAPPER_NO_FFI'] = '1';
await import('./file-device.test.ts');

export {};
