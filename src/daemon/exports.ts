/**
 * The mapped devices as NBD exports, each by its name. A client counts as a user of the device, so
 * that it cannot be removed meanwhile.
 */
import type { MappedDevice } from '../mapper/mapped-device.ts';
import type { Registry } from '../mapper/registry.ts';
import type { ExportTable, OpenExport } from '../nbd/export.ts';

export class DeviceExports implements ExportTable {
  readonly #registry: Registry;

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  list(): { name: string; description: string }[] {
    return this.#exportable().map((device) => ({
      name: device.dmName,
      description: describe(device),
    }));
  }

  open(name: string): OpenExport | null {
    const device = name === '' ? this.#default() : this.#registry.find({ name });
    if (device?.live === null || device === undefined) return null;
    device.open();
    let closed = false;
    return {
      name: device.dmName,
      description: describe(device),
      device,
      close: () => {
        if (!closed) device.close();
        closed = true;
      },
    };
  }

  #exportable(): MappedDevice[] {
    return this.#registry.devices.filter((device) => device.live !== null);
  }

  /** The one device that no other uses, if there is just one: what a stack is built for. */
  #default(): MappedDevice | undefined {
    const tops = this.#exportable().filter((device) => this.#registry.usersOf(device).length === 0);
    return tops.length === 1 ? tops[0] : undefined;
  }
}

function describe(device: MappedDevice): string {
  const types = [...(device.live?.rows() ?? [])].map(({ type }) => type.name);
  return `${[...new Set(types)].join(', ')} ${device.number}`;
}
