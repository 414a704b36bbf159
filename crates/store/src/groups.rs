//! Many rows in one statement.

/// Most rows of one statement; 14 values each stay far below the engine's limit of bound values.
const MOST: usize = 64;

/// Cuts rows into groups of as many as one statement takes. The sizes are powers of two, so there are few statements, and
/// they stay prepared.
pub(crate) fn groups<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = 1 << rows.len().min(MOST).checked_ilog2()?;
        let (group, rest) = rows.split_at(size);
        rows = rest;
        Some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_group_in_order() {
        for (count, sizes) in
            [(0, &[][..]), (1, &[1]), (7, &[4, 2, 1]), (64, &[64]), (203, &[64, 64, 64, 8, 2, 1])]
        {
            let rows: Vec<usize> = (0..count).collect();
            let groups: Vec<&[usize]> = groups(&rows).collect();
            assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), sizes);
            assert_eq!(groups.concat(), rows);
        }
    }
}
