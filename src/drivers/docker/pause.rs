//! The image of the container that holds a network namespace: one program that joins the namespace given to it and
//! then waits for its end. It is so small that it is written here as the instructions that it consists of, and so
//! needs to be pulled from nowhere.

/// Where the program finds the namespace that it is to join.
pub(super) const NAMESPACE: &str = "/netns";
/// Where the program is in its image.
pub(super) const PROGRAM: &str = "/pause";

/// Address at which the program is loaded.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// `open`, `setns`, and `pause` for ever; `exit(1)` if the namespace cannot be joined.
const X86_64: &[u8] = &[
    0xb8, 0x02, 0x00, 0x00, 0x00, // mov eax, SYS_open
    0x48, 0x8d, 0x3d, 0x2b, 0x00, 0x00, 0x00, // lea rdi, [rip + path]
    0x31, 0xf6, // xor esi, esi
    0x0f, 0x05, // syscall
    0x89, 0xc7, // mov edi, eax
    0xbe, 0x00, 0x00, 0x00, 0x40, // mov esi, CLONE_NEWNET
    0xb8, 0x34, 0x01, 0x00, 0x00, // mov eax, SYS_setns
    0x0f, 0x05, // syscall
    0x85, 0xc0, // test eax, eax
    0x75, 0x09, // jnz fail
    0xb8, 0x22, 0x00, 0x00, 0x00, // wait: mov eax, SYS_pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp wait
    0xbf, 0x01, 0x00, 0x00, 0x00, // fail: mov edi, 1
    0xb8, 0x3c, 0x00, 0x00, 0x00, // mov eax, SYS_exit
    0x0f, 0x05, // syscall
];

/// The same for 64-bit ARM, with `openat` and `ppoll`.
const AARCH64: &[u32] = &[
    0x9280_0c60, // mov x0, #AT_FDCWD
    0x1000_0261, // adr x1, path
    0xd280_0002, // mov x2, #0
    0xd280_0003, // mov x3, #0
    0xd280_0708, // mov x8, #SYS_openat
    0xd400_0001, // svc #0
    0xd2a8_0001, // mov x1, #CLONE_NEWNET
    0xd280_2188, // mov x8, #SYS_setns
    0xd400_0001, // svc #0
    0xb500_0100, // cbnz x0, fail
    0xd280_0000, // wait: mov x0, #0
    0xd280_0001, // mov x1, #0
    0xd280_0002, // mov x2, #0
    0xd280_0003, // mov x3, #0
    0xd280_0928, // mov x8, #SYS_ppoll
    0xd400_0001, // svc #0
    0x17ff_fffa, // b wait
    0xd280_0020, // fail: mov x0, #1
    0xd280_0ba8, // mov x8, #SYS_exit
    0xd400_0001, // svc #0
];

/// The program as an ELF file; `None` for an architecture for which it has not been written.
pub(super) fn program(arch: &str) -> Option<Vec<u8>> {
    let (machine, mut code): (u16, Vec<u8>) = match arch {
        "x86_64" => (62, X86_64.to_vec()),
        "aarch64" => (183, AARCH64.iter().flat_map(|word| word.to_le_bytes()).collect()),
        _ => return None,
    };
    code.extend_from_slice(NAMESPACE.as_bytes());
    code.push(0);
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    // Magic, 64 bits, little endian, version 1, System V.
    file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend_from_slice(&2u16.to_le_bytes());
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    // Entry, program headers, no section headers.
    for number in [BASE + HEADERS, 64, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for number in [64u16, 56, 1, 0, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    // One segment, readable and executable: the whole file.
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&5u32.to_le_bytes());
    for number in [0, BASE, BASE, size, size, 0x1000] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&code);
    Some(file)
}

/// The image as Docker imports it; `None` as for [`program`].
pub(super) fn image(arch: &str) -> Option<Vec<u8>> {
    // The second is where the namespace is mounted.
    pack(&[(PROGRAM, &program(arch)?), (NAMESPACE, &[])])
}

/// The program alone, for a container of another image.
pub(super) fn addition(arch: &str) -> Option<Vec<u8>> {
    pack(&[(PROGRAM, &program(arch)?)])
}

fn pack(files: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        archive.append_data(&mut header, name.trim_start_matches('/'), *content).ok()?;
    }
    archive.into_inner().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program where it finds no namespace: it must say so by its exit code.
    #[test]
    fn the_program_runs_on_this_machine() {
        use std::os::unix::fs::PermissionsExt;
        let Some(program) = program(std::env::consts::ARCH) else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let status = std::process::Command::new(&path).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }

    #[test]
    fn the_path_stands_where_the_instructions_look_for_it() {
        for (arch, code) in [("x86_64", X86_64.len()), ("aarch64", AARCH64.len() * 4)] {
            let program = program(arch).unwrap();
            assert_eq!(program.len(), HEADERS as usize + code + NAMESPACE.len() + 1, "{arch}");
        }
        // The displacement counts from the end of the instruction that holds it.
        let displacement = u32::from_le_bytes(X86_64[8..12].try_into().unwrap());
        assert_eq!(12 + displacement as usize, X86_64.len());
        // `adr` holds the distance from itself in units of one byte, its lowest bits apart.
        let adr = AARCH64[1];
        let distance = ((adr >> 5) & 0x7_ffff) << 2 | (adr >> 29) & 3;
        assert_eq!(4 + distance as usize, AARCH64.len() * 4);
        assert!(program("riscv64").is_none());
    }
}
