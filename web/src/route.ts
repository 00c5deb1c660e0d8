// Where the reader is: the part of the address behind the #, so that a link leads to a panel, an account, a race.
import { signal } from '@preact/signals';

/** A place on the page. */
export interface Place {
    readonly panel: string;
    readonly parameters: Readonly<Record<string, string>>;
}

/** The place that `#/lanes?user=7&race=2` names. */
export function placeOf(hash: string): Place {
    const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
    return { panel: path, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

/** How a link names a place. */
export function linkTo(panel: string, parameters: Readonly<Record<string, string>> = {}): string {
    const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== '')).toString();
    return `#/${panel}${query === '' ? '' : `?${query}`}`;
}

/** Where the reader is now. */
export const place = signal<Place>(placeOf(document.location.hash));

window.addEventListener('hashchange', () => {
    place.value = placeOf(document.location.hash);
});

/** Notes parameters of the panel in the address, without a step back in the browser's history; "" takes one out. */
export function note(parameters: Readonly<Record<string, string>>): void {
    const { panel, parameters: before } = place.value;
    history.replaceState(null, '', linkTo(panel, { ...before, ...parameters }));
    place.value = placeOf(document.location.hash);
}
