package uselite

import (
	"math"

	"github.com/viterin/vek/vek32"
)

// matrix is row after row, each of which begins stride numbers after the one before.
type matrix struct {
	rows, columns, stride int
	values                []float32
}

func newMatrix(rows, columns int) matrix {
	return matrix{rows, columns, columns, make([]float32, rows*columns)}
}

func (m matrix) row(i int) []float32 { return m.values[i*m.stride:][:m.columns] }

func (m matrix) add(other matrix) {
	for i := range m.rows {
		vek32.Add_Inplace(m.row(i), other.row(i))
	}
}

// part answers some columns of all rows, without copying.
func (m matrix) part(from, columns int) matrix {
	return matrix{m.rows, columns, m.stride, m.values[from:]}
}

// transposed answers a copy whose rows are the columns.
func (m matrix) transposed() matrix {
	out := newMatrix(m.columns, m.rows)
	for i := range m.rows {
		for k, v := range m.row(i) {
			out.values[k*out.stride+i] = v
		}
	}
	return out
}

// block is how many rows of the second matrix are multiplied with all of the first
// before the next ones are: so many stay in the fastest cache.
const block = 16

// multiply writes the products of the rows of x and those of y to out, which has a row
// for each of x and a column for each of y.
func multiply(out, x, y matrix) {
	for from := 0; from < y.rows; from += block {
		to := min(from+block, y.rows)
		for i := range x.rows {
			left, sums := x.row(i), out.row(i)
			for k := from; k < to; k++ {
				sums[k] = vek32.Dot(left, y.row(k))
			}
		}
	}
}

// dense is a linear layer.
type dense struct {
	kernel matrix // a row for each output
	bias   []float32
}

func (d *dense) apply(x matrix) matrix {
	out := newMatrix(x.rows, d.kernel.rows)
	multiply(out, x, d.kernel)
	for i := range out.rows {
		vek32.Add_Inplace(out.row(i), d.bias)
	}
	return out
}

// normalisation is a layer normalisation.
type normalisation struct{ scale, bias []float32 }

// normEpsilon keeps a row without variance finite.
const normEpsilon = 1e-6

func (n normalisation) apply(x matrix) matrix {
	out := newMatrix(x.rows, x.columns)
	for i := range x.rows {
		row, to := x.row(i), out.row(i)
		var sum, square float64
		for _, v := range row {
			sum += float64(v)
		}
		mean := sum / float64(len(row))
		for _, v := range row {
			square += (float64(v) - mean) * (float64(v) - mean)
		}
		factor := 1 / math.Sqrt(square/float64(len(row))+normEpsilon)
		for k, v := range row {
			to[k] = float32((float64(v)-mean)*factor)*n.scale[k] + n.bias[k]
		}
	}
	return out
}

// attend lets every row look at all rows, in each head by itself. qkv holds
// queries, keys and values of the given width side by side.
func attend(qkv matrix, width int) matrix {
	out := newMatrix(qkv.rows, width)
	size := width / heads
	scores := newMatrix(qkv.rows, qkv.rows)
	scale := float32(1 / math.Sqrt(float64(size)))
	for h := range heads {
		from := h * size
		multiply(scores, qkv.part(from, size), qkv.part(width+from, size))
		vek32.MulNumber_Inplace(scores.values, scale)
		for i := range scores.rows {
			softmax(scores.row(i))
		}
		multiply(out.part(from, size), scores, qkv.part(2*width+from, size).transposed())
	}
	return out
}

func softmax(row []float32) {
	top := row[0]
	for _, v := range row {
		top = max(top, v)
	}
	var sum float64
	for i, v := range row {
		e := math.Exp(float64(v - top))
		row[i] = float32(e)
		sum += e
	}
	for i := range row {
		row[i] /= float32(sum)
	}
}
