package uselite

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
)

// matrix is row after row.
type matrix struct {
	rows, columns int
	values        []float32
}

func newMatrix(rows, columns int) matrix {
	return matrix{rows, columns, make([]float32, rows*columns)}
}

func (m matrix) row(i int) []float32 { return m.values[i*m.columns : (i+1)*m.columns] }

func (m matrix) add(other matrix) {
	for i, v := range other.values {
		m.values[i] += v
	}
}

// part answers some columns of all rows, without copying.
func (m matrix) part(from, columns int) blas32.General {
	return blas32.General{Rows: m.rows, Cols: columns, Stride: m.columns, Data: m.values[from:]}
}

func (m matrix) general() blas32.General { return m.part(0, m.columns) }

// dense is a linear layer.
type dense struct {
	kernel matrix
	bias   []float32
}

func (d *dense) apply(x matrix) matrix {
	out := newMatrix(x.rows, d.kernel.columns)
	for i := range out.rows {
		copy(out.row(i), d.bias)
	}
	blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, x.general(), d.kernel.general(), 1, out.general())
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
		blas32.Gemm(blas.NoTrans, blas.Trans, scale, qkv.part(from, size), qkv.part(width+from, size), 0, scores.general())
		for i := range scores.rows {
			softmax(scores.row(i))
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, scores.general(), qkv.part(2*width+from, size), 0, out.part(from, size))
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
