job "volume-csi" {
  group "app" {
    volume "disk" {
      type            = "csi"
      source          = "disk-"
      access_mode     = "single-node-writer"
      attachment_mode = "file-system"
      per_alloc       = true
      mount_options {
        fs_type     = "ext4"
        mount_flags = ["noatime", "nodiratime"]
      }
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      volume_mount {
        volume      = "disk"
        destination = "/srv"
      }
    }
  }
}
