package chain

import (
	"cmp"
	"slices"
)

// Plan groups the indices of the prompts by position: the groups run one after another, the prompts of a group at the
// same time. Inside a group the order is that of the document.
func (c *Chain) Plan() [][]int {
	var groups [][]int
	last := 0
	for _, i := range c.order() {
		if p := c.Prompts[i].Position; len(groups) == 0 || p != last {
			groups = append(groups, nil)
			last = p
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], i)
	}
	return groups
}

// order lists the indices of the prompts by position, then document order.
func (c *Chain) order() []int {
	order := make([]int, len(c.Prompts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(c.Prompts[a].Position, c.Prompts[b].Position)
	})
	return order
}

// Turn is what one finished prompt said and heard.
type Turn struct {
	User      string // the user message that was sent
	Assistant string // the answer
}

// History picks the turns that prompt i sees as its conversation, oldest first. The turns are those of finished prompts,
// by prompt index; a prompt without a turn (it failed) is left out. The order is by position, then by place in the
// document, and only prompts of earlier positions count: when a prompt finished has no influence.
func (c *Chain) History(i int, turns map[int]Turn) []Turn {
	h := c.Prompts[i].History
	if h.Mode != HistoryFull && h.Mode != HistoryLast {
		return nil
	}
	var out []Turn
	for _, j := range c.order() {
		if c.Prompts[j].Position >= c.Prompts[i].Position {
			break
		}
		if t, ok := turns[j]; ok {
			out = append(out, t)
		}
	}
	if h.Mode == HistoryLast && len(out) > h.Last {
		out = out[len(out)-h.Last:]
	}
	return out
}

// normalisePositions makes the positions 1..n, keeping their order and which are equal.
func (c *Chain) normalisePositions() {
	for n, group := range c.Plan() {
		for _, i := range group {
			c.Prompts[i].Position = n + 1
		}
	}
}
