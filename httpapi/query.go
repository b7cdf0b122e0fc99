package httpapi

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/chainstream/chainstream/events"
)

// list is a page of a list.
type list[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"nextCursor"` // null on the last page
}

// page cuts a list that was read with one more entry than asked for, and sets
// the cursor behind the last entry that is shown.
func page[T any](items []T, limit int, cursor func(T) int64) list[T] {
	if len(items) <= limit {
		if items == nil {
			items = []T{}
		}
		return list[T]{Items: items}
	}
	items = items[:limit]
	next := strconv.FormatInt(cursor(items[limit-1]), 10)
	return list[T]{Items: items, NextCursor: &next}
}

// query reads the parameters of a request and keeps the first problem.
type query struct {
	values url.Values
	err    error
}

func newQuery(c echo.Context) *query {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.err = badParameter("query", "The query of the address cannot be read.")
	}
	return q
}

func (q *query) fail(name, format string, args ...any) {
	if q.err == nil {
		q.err = badParameter(name, fmt.Sprintf(format, args...))
	}
}

// one answers a parameter that may stand once; "" when it is missing.
func (q *query) one(name string) string {
	v := q.values[name]
	if len(v) > 1 {
		q.fail(name, "Give it once.")
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

// whole answers a number between least and most, or fallback when it is missing.
func (q *query) whole(name string, least, most, fallback int64) int64 {
	s := q.one(name)
	if s == "" && !q.values.Has(name) {
		return fallback
	}
	n, err := events.ParseCursor(s)
	if err != nil || n < least || n > most {
		q.fail(name, "A whole number from %d to %d is expected.", least, most)
		return fallback
	}
	return n
}

// flag answers true or false.
func (q *query) flag(name string, fallback bool) bool {
	switch s := q.one(name); {
	case s == "true":
		return true
	case s == "false":
		return false
	case q.values.Has(name):
		q.fail(name, "true or false is expected.")
	}
	return fallback
}

// time answers a point in time, zero when it is missing.
func (q *query) time(name string) time.Time {
	if !q.values.Has(name) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, q.one(name))
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		q.fail(name, "A time such as 2026-11-22T04:00:00Z is expected.")
	}
	return t
}

// types answers event names, separated by commas or given several times; nil
// when the parameter is missing.
func (q *query) types(name string) []events.Type {
	if !q.values.Has(name) {
		return nil
	}
	known := make(map[events.Type]bool)
	for _, t := range events.Types() {
		known[t] = true
	}
	var list []events.Type
	for _, v := range q.values[name] {
		for s := range strings.SplitSeq(v, ",") {
			t := events.Type(strings.TrimSpace(s))
			if !known[t] {
				q.fail(name, "There is no event with this name. See /docs for the names.")
				return nil
			}
			list = append(list, t)
		}
	}
	return list
}

// pathID answers the number in the address, and false for anything else.
func pathID(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == s
}
