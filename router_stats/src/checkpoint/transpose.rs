//! Transposition of matrices of opaque elements.

use rayon::prelude::*;

/// Side of the square tiles: a row of bf16 fills a cache line.
const TILE: usize = 32;

/// Elements from which rows of tiles are written in parallel.
const PARALLEL: usize = 1 << 18;

/// Writes the transpose of a matrix of N-byte elements, bit for bit.
///
/// Both matrices are row-major and may be windows into wider ones, of
/// `source_stride` and `target_stride` elements per row:
/// `target[c, r] = source[r, c]` for every row `r` of `source` and every
/// `c < columns`. `target` must reach at least to its last written element.
///
/// # Panics
/// If `target` is too short or a stride is zero.
pub fn transpose<const N: usize>(
    source: &[[u8; N]],
    source_stride: usize,
    target: &mut [[u8; N]],
    target_stride: usize,
    columns: usize,
) {
    let rows = source.len().div_ceil(source_stride);
    let tiles = |first: usize, target: &mut [[u8; N]]| {
        let width = TILE.min(columns - first);
        // Source rows a power of two apart share cache sets, so each tile is
        // first gathered into a buffer that does not conflict with itself.
        let mut tile = [[[0; N]; TILE]; TILE];
        for top in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - top);
            for (offset, row) in tile[..height].iter_mut().enumerate() {
                let start = (top + offset) * source_stride + first;
                row[..width].copy_from_slice(&source[start..start + width]);
            }
            for column in 0..width {
                let start = column * target_stride + top;
                let line = &mut target[start..start + height];
                for (element, row) in line.iter_mut().zip(&tile) {
                    *element = row[column];
                }
            }
        }
    };
    let bands = target
        .chunks_mut(TILE * target_stride)
        .take(columns.div_ceil(TILE))
        .enumerate();
    if rows * columns < PARALLEL {
        bands.for_each(|(band, target)| tiles(band * TILE, target));
    } else {
        bands
            .par_bridge()
            .for_each(|(band, target)| tiles(band * TILE, target));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, columns: usize) -> Vec<[u8; 4]> {
        (0..(rows * columns) as u32).map(u32::to_le_bytes).collect()
    }

    #[test]
    fn elements_move_to_their_mirror_image() {
        for (rows, columns) in [(1, 1), (3, 70), (33, 64), (600, 513)] {
            let source = matrix(rows, columns);
            let mut target = vec![[0; 4]; rows * columns];
            transpose(&source, columns, &mut target, rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(target[column * rows + row], source[row * columns + column]);
                }
            }
        }
    }

    #[test]
    fn windows_into_wider_matrices_touch_nothing_else() {
        // The right half of [3, 8] into the middle of [4, 5].
        let source = matrix(3, 8);
        let mut target = [[9; 4]; 20];
        transpose(&source[4..], 8, &mut target[1..], 5, 4);
        for column in 0..4 {
            for row in 0..3 {
                assert_eq!(target[column * 5 + 1 + row], source[row * 8 + 4 + column]);
            }
            assert_eq!(target[column * 5], [9; 4]);
            assert_eq!(target[column * 5 + 4], [9; 4]);
        }
    }
}
