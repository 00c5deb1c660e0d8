// Figures as the panel writes them. Pure; the same in every language.
import type { Duration } from '@bufbuild/protobuf/wkt';

import { milliseconds } from './rates';

/** What stands where there is no figure. */
export const NONE = '–';

/** A rate or a ratio: whole from 100 on, one decimal below. */
export function rough(value: number | null | undefined): string {
    if (value === null || value === undefined) {
        return NONE;
    }
    return value >= 100 ? Math.round(value).toString() : value.toFixed(1);
}

/** Milliseconds, with two decimals below ten. */
export function inMilliseconds(value: number | null | undefined): string {
    if (value === null || value === undefined) {
        return NONE;
    }
    return `${value < 10 ? value.toFixed(2) : rough(value)} ms`;
}

/** A duration of the contract, in the two largest units that it has. */
export function span(duration: Duration | undefined): string {
    if (duration === undefined) {
        return NONE;
    }
    const ms = milliseconds(duration);
    if (ms < 1000) {
        return `${Math.round(ms)} ms`;
    }
    const seconds = Math.floor(ms / 1000);
    if (seconds < 60) {
        return `${(ms / 1000).toFixed(1)} s`;
    }
    const [minutes, hours] = [Math.floor(seconds / 60), Math.floor(seconds / 3600)];
    return hours === 0 ? `${minutes} min ${seconds % 60} s` : `${hours} h ${minutes % 60} min`;
}

/** A time of the day, to the second. */
export function clock(at: number): string {
    const date = new Date(at);
    const parts = [date.getHours(), date.getMinutes(), date.getSeconds()];
    return parts.map((part) => part.toString().padStart(2, '0')).join(':');
}
