import { type ReactNode, useState } from "react";
import { Button, Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";
import styles from "./confirm.module.css";
import { buttonClass, dangerClass, Notice } from "./parts";

interface Asked {
  title: string;
  children: ReactNode;
  action: string;
  run: () => Promise<unknown>;
  close: () => void;
}

/** Ask before something ends work; an error stays in the dialog. */
export function Confirm({ title, children, action, run, close }: Asked) {
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    setError(null);
    try {
      await run();
      close();
    } catch (fault) {
      setError(fault);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Sheet title={title} close={close} role="alertdialog">
      {children}
      {error !== null && <Notice error={error} />}
      <div className={styles.actions}>
        <Button className={buttonClass} onPress={close} autoFocus>
          Cancel
        </Button>
        <Button className={dangerClass} onPress={() => void go()} isDisabled={busy}>
          {action}
        </Button>
      </div>
    </Sheet>
  );
}

interface Shown {
  title: string;
  close: () => void;
  role?: "dialog" | "alertdialog";
  /** For an editor or a table. */
  wide?: boolean;
  /** Whether a press outside closes it; not where it shows what cannot be shown again. */
  isDismissable?: boolean;
  children: ReactNode;
}

export function Sheet({ title, close, role = "dialog", wide = false, isDismissable = true, children }: Shown) {
  return (
    <ModalOverlay
      className={styles.overlay ?? ""}
      isOpen
      isDismissable={isDismissable}
      isKeyboardDismissDisabled={!isDismissable}
      onOpenChange={(open) => !open && close()}
    >
      <Modal className={`${styles.modal} ${wide ? styles.wide : ""}`}>
        <Dialog role={role} className={styles.dialog ?? ""}>
          <Heading slot="title">{title}</Heading>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
