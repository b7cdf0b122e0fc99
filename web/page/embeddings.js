// What the page says about embedding models.

import { h } from './dom.js';

/** The model that knows no meaning, which is for those who have no other. */
export const isLastResort = (model) => model === 'offline/hash';

/** The mark of that model. */
export function lastResortBadge(model) {
  if (!isLastResort(model)) return null;
  return h('span', { class: 'badge', title: 'It compares spellings and knows no meaning', data: { testid: 'last-resort' } }, 'last resort');
}

/** Embedding models of GET /api/v1/models as options, those that cannot be called in a group of their own. */
export function modelOptions(models) {
  const rank = (model) => (usable(model) ? 0 : 1);
  return [...models]
    .sort((a, b) => rank(a) - rank(b) || (isLastResort(a.id) ? 1 : 0) - (isLastResort(b.id) ? 1 : 0))
    .map((model) => ({
      value: model.id,
      label: [model.id, remark(model)].filter(Boolean).join(' · '),
      group: usable(model) ? 'Can be called' : 'Cannot be called from here',
    }));
}

const usable = (model) => model.configured && model.available;

function remark(model) {
  if (!model.configured) return 'not set up';
  if (!model.available) return 'does not answer';
  return isLastResort(model.id) ? 'last resort: knows no meaning' : model.label;
}
