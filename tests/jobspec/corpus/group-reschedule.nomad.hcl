job "group-reschedule" {
  group "app" {
    reschedule {
      delay          = "45s"
      delay_function = "constant"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
