declare module "*.module.css" {
  const classes: Record<string, string>;
  export default classes;
}

declare module "*?worker&url" {
  const address: string;
  export default address;
}
