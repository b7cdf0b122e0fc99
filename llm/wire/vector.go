package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// Vector reads a JSON array of numbers. Unlike []float32 it takes nothing else: no
// null, which would silently be 0, and no number beyond what a float32 can hold.
type Vector []float32

// UnmarshalJSON implements json.Unmarshaler.
func (v *Vector) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if len(data) < 2 || data[0] != '[' {
		return vectorError("something else than a list")
	}
	rest := bytes.TrimSpace(data[1 : len(data)-1])
	if len(rest) == 0 {
		*v = Vector{}
		return nil
	}
	out := make(Vector, 0, bytes.Count(rest, []byte(","))+1)
	for item := range bytes.SplitSeq(rest, []byte(",")) {
		x, err := strconv.ParseFloat(string(bytes.TrimSpace(item)), 32)
		if err != nil {
			return vectorError(fmt.Sprintf("%.20q", bytes.TrimSpace(item)))
		}
		out = append(out, float32(x))
	}
	*v = out
	return nil
}

func vectorError(value string) error {
	return &json.UnmarshalTypeError{Value: value, Type: reflect.TypeFor[Vector]()}
}
